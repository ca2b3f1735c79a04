"""What connections hold together is bounded, and those that hold most make room, not those that come last."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from aphlict.server.write_buffer import BufferBudget
from tests.support.clocks import Clock
from tests.support.curl import curl
from tests.support.frames import CLOSE, CONTINUATION, PING, frame, text
from tests.support.heads import head
from tests.support.nodes import RunningNode, running_node
from tests.support.waiting import eventually

LONG = "x" * 32_768
MESSAGES, TEXT_SIZE = 120, 6000  # for each slow browser: 0.7 MB
MIB = 2**20
ADDRESSES = [f"127.0.1.{number}" for number in range(1, 9)]  # of loopback: those of attackers
CLOSED = [b"\x88\x0a\x03\xf5too slow", b""]  # with 1013, or without a word


class Browser:
    """A WebSocket with a small buffer, that reads only what it is asked to."""

    def __init__(self, port: int, channels: Sequence[str] = (), address: str = "127.0.0.1") -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.bind((address, 0))
        self.sock.connect(("127.0.0.1", port))
        self.sock.setblocking(False)
        self.data = b""
        self.send(head())
        if channels:
            self.send(text(json.dumps({"command": "subscribe", "data": list(channels)})))

    def send(self, data: bytes) -> None:
        """Send as much as the kernel takes at once: all that a test sends."""
        assert self.sock.send(data) == len(data)

    async def read(self, what: bytes, count: int = 1) -> int:
        """Read until this has come so often, or the connection ends: how often it came."""
        while self.data.count(what) < count and (data := await self._recv()):
            self.data += data
        return self.data.count(what)

    async def _recv(self) -> bytes:
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 65_536), 10)
        except ConnectionResetError:
            return b""

    async def end(self) -> bytes:
        """What comes up to the end of the connection, without the head of the handshake."""
        while data := await self._recv():
            self.data += data
        return self.data.rpartition(b"\r\n\r\n")[2]


@contextlib.contextmanager
def browsers(node: RunningNode, channels: Sequence[Sequence[str]], addresses: Sequence[str]) -> Iterator[Any]:
    """Browsers with these subscriptions, which come from these addresses in turn."""
    with contextlib.ExitStack() as stack:
        made = []
        for number, each in enumerate(channels):
            made.append(Browser(node.client_port, each, addresses[number % len(addresses)]))
            stack.callback(made[-1].sock.close)
        yield made


def hits(node: RunningNode) -> dict[str, int]:
    return node.node.hub.limit_counters.counts


def pool(node: RunningNode) -> BufferBudget:
    return node.node.server.context.buffer_budget


async def listening(node: RunningNode, count: int) -> None:
    await eventually(lambda: len(node.node.hub.instance("default").index) == count, "subscriptions")


async def test_slow_browsers_get_all_while_others_read_nothing() -> None:
    names = [f"c{number}" for number in range(40)]
    slow = ["one", "two", "three"]
    async with running_node(limits__send_buffer__total=16 * MIB) as node:
        with (
            browsers(node, [[name] for name in names], ADDRESSES),
            browsers(node, [[name] for name in slow], ["127.0.2.1", "127.0.2.2", "127.0.2.3"]) as phones,
        ):
            await listening(node, 43)
            while not hits(node):
                await node.publish({"subscribers": names, "text": LONG})
            for _ in range(MESSAGES):
                for name in slow:
                    await node.publish({"subscribers": [name], "text": "x" * TEXT_SIZE})
            for phone in phones:
                assert await phone.read(b"x" * TEXT_SIZE, MESSAGES) == MESSAGES
        assert set(hits(node)) == {"limits.send_buffer.total"}
        assert not pool(node).is_full


async def test_one_address_does_not_take_what_is_for_all() -> None:
    names = [f"c{number}" for number in range(40)]
    async with running_node(limits__send_buffer__total=16 * MIB) as node:
        with (
            browsers(node, [[name] for name in names], ADDRESSES[:1]) as attackers,
            browsers(node, [["other"]], ADDRESSES[1:2]) as [other],
        ):
            await listening(node, 41)
            for _ in range(20):
                await node.publish({"subscribers": ["other"], "text": LONG})
                await node.publish({"subscribers": names, "text": LONG})
                assert pool(node).used < 6 * MIB
            assert set(hits(node)) == {"limits.send_buffer.address"}
            assert await other.read(LONG.encode(), 20) == 20
            assert (await attackers[0].end()).endswith(CLOSED[0])


async def test_subscriptions_beyond_the_memory_for_them() -> None:
    """Pages with few are served while attackers have very many: those that have most are closed."""
    async with running_node(limits__subscriptions__total=MIB) as node:
        greedy = [[f"{number}.{name}" for name in range(500)] for number in range(20)]
        with browsers(node, greedy, ADDRESSES) as attackers:
            await eventually(
                lambda: hits(node).get("limits.subscriptions.total", 0) >= 12, "those that make room"
            )
            with browsers(node, [[f"page{number}"] for number in range(100)], ["127.0.2.1"]) as pages:
                await eventually(lambda: node.node.hub.instance("default").index.match(["page99"]))
                for number, page in enumerate(pages):
                    await node.publish({"subscribers": [f"page{number}"], "text": "for it"})
                    assert await page.read(b"for it") == 1
            assert (await attackers[0].end()).endswith(b"\x88\x18\x03\xf5too many subscriptions")
            assert node.node.hub.subscription_memory.used <= MIB
        await eventually(lambda: node.node.hub.connections == 0, "the end of all")
        assert node.node.hub.subscription_memory.used == 0


async def test_subscriptions_that_there_is_no_room_for_though_all_have_few() -> None:
    names = [[f"{number}.{name}" for name in range(32)] for number in range(10)]
    async with running_node(limits__subscriptions__total=100_000) as node:
        with browsers(node, names, ADDRESSES) as pages:
            await eventually(lambda: len(node.node.hub.instance("default").index) == 320)
            node.node.hub.subscription_memory.limit = node.node.hub.subscription_memory.used
            with browsers(node, [["another"]], ADDRESSES) as [late]:
                assert (await late.end()).endswith(b"\x88\x18\x03\xf5too many subscriptions")
            for path in ("events", "poll"):
                answer = await curl(f"http://127.0.0.1:{node.client_port}/{path}?channel=another")
                assert (answer.status, answer.headers["retry-after"]) == (503, "10")
            assert hits(node) == {"limits.subscriptions.total": 3}
            await node.publish({"subscribers": ["0.0"], "text": "for it"})
            assert await pages[0].read(b"for it") == 1


@pytest.mark.parametrize("fragments", [False, True])
async def test_messages_that_are_not_whole_count(fragments: bool) -> None:
    part = frame(bytes(65_000), final=not fragments)
    part = part if fragments else part[:-1]
    async with running_node(limits__send_buffer__total=2 * MIB) as node:
        with browsers(node, [()] * 60, ADDRESSES) as attackers:
            for each in attackers:
                each.send(part[:30_000])
            for each in attackers:
                each.send(part[30_000:])
            await eventually(
                lambda: hits(node).get("limits.send_buffer.total", 0) >= 28, "those that make room"
            )
            await eventually(lambda: node.node.hub.connections <= 32, "their end")
            assert pool(node).used <= 2 * MIB
            assert (await attackers[0].end()) in CLOSED
            attackers[-1].send(frame(b"", CONTINUATION) if fragments else b"x")
        await eventually(lambda: pool(node).used == 0, "nothing that is kept")


async def test_bodies_that_are_not_whole_count() -> None:
    """The largest gets an answer that says when to try again."""
    begin = b"POST / HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n"
    size, chunked = begin % b"Content-Length: 1000000", begin % b"Transfer-Encoding: chunked"
    async with running_node(limits__send_buffer__total=2 * MIB) as node, contextlib.AsyncExitStack() as stack:
        asked = []
        for number, request in enumerate([size, chunked + b"f4240\r\n"] * 3):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", node.admin_port, local_addr=(ADDRESSES[number], 0)
            )
            stack.callback(writer.close)
            asked.append((reader, writer))
            writer.write(request + bytes(500_000 + number))
            await writer.drain()
        await eventually(lambda: hits(node).get("limits.send_buffer.total") == 2, "those that make room")
        refused = [reader for reader, _ in asked if reader._buffer]  # type: ignore[attr-defined]
        assert len(refused) == 2
        for reader in refused:
            answer = await reader.readuntil(b"\r\n\r\n")
            assert b" 503 " in answer
            assert b"\r\nRetry-After: 1\r\n" in answer
        for _, writer in asked:
            writer.close()
        await eventually(lambda: pool(node).used == 0, "nothing that is kept")


async def test_a_replay_that_is_read_too_slowly_ends_and_says_so() -> None:
    """It may be resumed; what is gone by then is a gap."""
    async with running_node(limits__history=4 * MIB) as node:
        with browsers(node, [["a"]], ADDRESSES) as [slow]:
            await listening(node, 1)
            slow.send(text(json.dumps({"command": "unsubscribe", "data": ["a"]})))
            await listening(node, 0)
            for number in range(40):
                await node.publish({"subscribers": ["a"], "uniqueID": f"m{number}", "text": LONG})
            slow.send(text(json.dumps({"command": "subscribe", "data": ["a"]})))
            slow.send(text(json.dumps({"command": "replay", "data": {"after": "m0"}, "id": 1})))
            await listening(node, 1)
            await eventually(lambda: pool(node).used > 0, "the replay")
            for _ in range(60):
                await node.publish({"subscribers": ["b"], "text": LONG})
            received = await slow.end()
            assert received.endswith(CLOSED[0])
            names = [part.partition(b'"')[0].decode() for part in received.split(b'"uniqueID":"')[1:]]
            assert names == [f"m{number}" for number in range(1, len(names) + 1)]
            assert 0 < len(names) < 39
            assert b'"recovered"' not in received
        assert hits(node) == {"limits.send_buffer": 1}
        await eventually(lambda: pool(node).used == 0, "nothing that is kept")


async def test_a_message_has_to_become_whole_in_time(clock: Clock) -> None:
    async with running_node(limits__client_frame__time=20, ping__interval=15) as node:
        with browsers(node, [()] * 2, ADDRESSES) as [slow, steady]:
            begun, rest = frame(b"{", final=False), frame(b"}", CONTINUATION)
            for each in (slow, steady):
                each.send(begun)
            await eventually(lambda: pool(node).used > 0, "their first fragments")
            for _ in range(2):
                clock.advance(node, 9)
                slow.send(frame(b"", PING))
                steady.send(rest + begun)
                await were_read(slow, steady)
            clock.advance(node, 9)
            assert closed_with(await slow.end()) == 1008
            assert hits(node) == {"limits.client_frame.time": 1}
            assert node.node.hub.connections == 1


def closed_with(data: bytes) -> int:
    """The code of the close frame, after answers to pings."""
    while data.startswith(b"\x8a"):
        data = data[2 + data[1] :]
    assert data[0] == 0x80 | CLOSE
    return int.from_bytes(data[2:4], "big")


async def were_read(*some: Browser) -> None:
    """What these sent has been read: they get an answer to a ping."""
    for each in some:
        each.data = b""
        each.send(frame(b"now", PING))
        assert await each.read(b"\x8a\x03now")
