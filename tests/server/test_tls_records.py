"""TLS records that bring no application data, from a client that makes them with libssl itself."""

import array
import asyncio
import fcntl
import json
import logging
import os
import random
import ssl
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from aphlict.server.poller import READ
from tests.support.certificates import self_signed
from tests.support.clocks import Clock
from tests.support.frames import PING, PONG, frame, text
from tests.support.heads import head
from tests.support.nodes import RunningNode, running_node
from tests.support.openssl import REQUESTED, Client
from tests.support.waiting import eventually

CHUNK = 16 * 1024  # bytes that a connection may read in one turn
PONG_FRAME = bytes((0x80 | PONG, 0))
ANSWER = pytest.mark.parametrize("request_", [0, REQUESTED], ids=["", "with answers"])


def websocket(port: int, room: int | None = None) -> Client:
    """A client that has upgraded."""
    client = Client(port, room=room)
    client.sock.sendall(client.encrypted(head()))
    assert client.read().startswith(b"HTTP/1.1 101 ")
    return client


async def with_tls(folder: Path, work: Callable[[RunningNode], None], **keys: object) -> None:
    """Run a node with TLS on both ports, and the work in a thread beside it."""
    files = self_signed().write(folder)
    async with running_node(client=files.settings(), admin=files.settings(), **keys) as node:  # type: ignore[arg-type]
        await asyncio.to_thread(work, node)


def refused(node: RunningNode) -> int:
    """How many connections were closed for such records."""
    return node.node.hub.limit_counters.counts.get("ssl.records", 0)


@ANSWER
@pytest.mark.parametrize("port", ["client", "admin"])
async def test_who_sends_nothing_else_is_closed(
    port: str, request_: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def work(node: RunningNode) -> None:
        with Client(node.client_port if port == "client" else node.admin_port) as client:
            client.sock.sendall(client.key_updates(2000, request_))
            assert client.has_ended()
        assert refused(node) == 1

    with caplog.at_level(logging.WARNING):
        await with_tls(tmp_path, work)
    assert [record.getMessage() for record in caplog.records] == ["ssl.records refused 127.0.0.1"]


@ANSWER
async def test_a_websocket_that_sends_nothing_else_is_closed(request_: int, tmp_path: Path) -> None:
    def work(node: RunningNode) -> None:
        with websocket(node.client_port) as client:
            client.sock.sendall(client.key_updates(2000, request_))
            assert client.has_ended()
        assert refused(node) == 1

    await with_tls(tmp_path, work)


@ANSWER
async def test_new_keys_now_and_then_are_served(request_: int, tmp_path: Path) -> None:
    def work(node: RunningNode) -> None:
        with websocket(node.client_port) as client:
            for _ in range(10):
                client.sock.sendall(client.key_updates(20, request_) + client.encrypted(frame(opcode=PING)))
                assert client.read() == PONG_FRAME
        assert not refused(node)

    await with_tls(tmp_path, work, limits__commands__burst=1000)


def unread(fd: int) -> int:
    """Bytes that have come, and were not read."""
    size = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, size)
    return size[0]


async def test_one_turn_reads_a_bounded_number_of_bytes(tmp_path: Path) -> None:
    files = self_signed().write(tmp_path)

    async with running_node(client=files.settings()) as node:
        client = await asyncio.to_thread(websocket, node.client_port)
        [connection] = node.node.server.connections()
        records = client.key_updates(3000)
        fd = os.dup(connection._socket.fileno())  # the connection may close its own
        node.node.server.context.poller.modify(connection._socket.fileno(), 0)
        client.sock.sendall(records)
        await eventually(lambda: unread(fd) == len(records), "all records")
        connection.on_events(READ)
        assert 0 < len(records) - unread(fd) <= CHUNK
        client.sock.close()
        os.close(fd)


@pytest.mark.parametrize("kind", ["without data", "with a byte each"])
async def test_records_that_bring_next_to_nothing_are_charged(
    kind: str, clock: Clock, tmp_path: Path
) -> None:
    files = self_signed().write(tmp_path)
    ping = frame(opcode=PING)
    async with running_node(client=files.settings(), limits__commands__burst=20) as node:
        client = await asyncio.to_thread(websocket, node.client_port)
        records = client.key_updates(20) if kind == "without data" else client.encrypted(ping * 4, size=1)
        client.sock.sendall(records + client.encrypted(ping))
        await eventually(lambda: node.node.hub.limit_counters.counts.get("limits.commands"), "the pause")
        client.sock.sendall(client.encrypted(text(json.dumps({"command": "ping", "id": 1}))))
        reading = asyncio.create_task(asyncio.to_thread(read_until, client, b'"ack"'))
        await asyncio.sleep(0)
        assert not reading.done()
        clock.advance(node, 1)
        await reading
        client.sock.close()


def read_until(client: Client, end: bytes) -> bytes:
    data = b""
    while end not in data:
        data += client.read()
    return data


async def test_records_may_be_cut_and_padded_in_any_way(tmp_path: Path) -> None:
    chance = random.Random(1)

    def work(node: RunningNode) -> None:
        with websocket(node.client_port) as client:
            data = b""
            for number in range(60):
                if number == 30:
                    client.pad(1000)
                size = chance.choice((1, 10, 125))
                data += client.encrypted(frame(bytes(size), PING), size=chance.choice((6, 50, 16384)))
                data += client.key_updates(chance.randrange(3), chance.randrange(2))
            data += client.encrypted(text(json.dumps({"command": "ping", "id": "x" * 40_000})))
            while data:
                size = chance.choice((1, 2, 3, 4, 5, 6, 27, 1000, 20_000))
                client.sock.sendall(data[:size])
                data = data[size:]
            answers = read_until(client, b'"ack"')
            assert answers.count(bytes((0x80 | PONG,))) >= 60
        assert not refused(node)

    await with_tls(tmp_path, work, limits__commands__burst=10_000)


async def test_answers_to_records_get_between_frames_that_wait(tmp_path: Path) -> None:
    """A slow browser renews its keys while large frames wait for it: each frame arrives whole."""
    files = self_signed().write(tmp_path)

    limits = {"limits__send_buffer": 1 << 26, "limits__commands__burst": 10_000}
    async with running_node(client=files.settings(), **limits) as node:  # type: ignore[arg-type]
        client = await asyncio.to_thread(websocket, node.client_port, 8192)
        client.sock.sendall(client.encrypted(text('{"command":"subscribe","data":["a"],"id":1}')))
        await asyncio.to_thread(read_until, client, b'"ack"')
        sizes = [10, 300_000, 16_384, 5, 40_000, 900_000] * 4
        for number, size in enumerate(sizes):
            await node.publish({"subscribers": ["a"], "n": number, "text": "x" * size})
            client.sock.sendall(client.key_updates(1, REQUESTED))
        pool = node.node.server.context.buffer_budget
        assert pool.used > 900_000, "nothing waits"
        end = b'"n":%d' % (len(sizes) - 1)
        data = await asyncio.to_thread(read_until, client, end)
        data += await asyncio.to_thread(read_until, client, b"}") if not data.endswith(b"}") else b""
        assert [size for size in sizes if b"x" * size in data] == sizes
        client.sock.close()


async def test_a_server_under_such_records_serves_others(tmp_path: Path) -> None:
    """Many clients, each as long as it is let: nobody else's answer has to wait for them."""
    files = self_signed().write(tmp_path)
    async with running_node(client=files.settings()) as node:

        def attack() -> None:
            with Client(node.client_port) as client:
                client.sock.sendall(client.key_updates(3000, REQUESTED))
                client.has_ended()

        attacks = [asyncio.create_task(asyncio.to_thread(attack)) for _ in range(5)]
        context = ssl.create_default_context(cafile=files.ca)
        async with connect(node.url(), ssl=context, open_timeout=20) as browser:
            while not all(each.done() for each in attacks):
                await browser.send('{"command":"ping"}')
                assert json.loads(await asyncio.wait_for(browser.recv(), 20)) == {"type": "pong"}
        await asyncio.gather(*attacks)
        assert refused(node) == 5
