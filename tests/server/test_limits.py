"""Each limit, at a real server: what happens past it, what is counted, and that nobody else notices."""

import asyncio
import contextlib
import itertools
import json
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from aphlict.config.settings import Settings
from aphlict.server.connection import Connection
from tests.support.certificates import self_signed
from tests.support.clocks import Clock
from tests.support.curl import curl
from tests.support.nodes import RunningNode, command, receive, running_node, subscribed
from tests.support.proxied import v2
from tests.support.waiting import eventually, eventually_async

UPGRADE = (
    b"GET /ws/ HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
EVENTS = b"GET /events?channel=A HTTP/1.1\r\nHost: x\r\n\r\n"
POLL = b"GET /poll?channel=A&wait=0 HTTP/1.1\r\nHost: x\r\n\r\n"
STATUS = b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n"
PING = b"\x89\x80\0\0\0\0"
PONG = b"\x8a\0"
SILENCE = 0.4  # seconds: the server looks more often whether a pause is over


class Raw:
    """A connection without manners."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes) -> bytes:
        """Send a request, and return the head of the answer."""
        self.writer.write(request)
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)

    async def ask_on(self, request: bytes) -> bytes:
        """Send a request to a connection that is kept open, and return the head of the answer."""
        head = await self.ask(request)
        _, _, length = head.partition(b"Content-Length: ")
        if length:
            await asyncio.wait_for(self.reader.readexactly(int(length.split(b"\r\n")[0])), 5)
        return head

    async def drips(self, data: Iterable[bytes]) -> float:
        """Send these bit by bit until the server ends the connection; how many seconds that took."""
        began = time.monotonic()
        for part in data:
            self.writer.write(part)
            await asyncio.sleep(0.05)
            if self.reader.at_eof() or self.reader.exception():  # the latter where a part came too late
                break
        return time.monotonic() - began

    async def gets(self, pongs: int) -> None:
        """So many come, and then nothing."""
        assert await asyncio.wait_for(self.reader.readexactly(pongs * len(PONG)), 5) == PONG * pongs
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(self.reader.read(1), SILENCE)

    async def end(self, timeout: float = 5) -> bytes:
        """All that comes until the server ends the connection."""
        return await asyncio.wait_for(self.reader.read(), timeout)


@asynccontextmanager
async def raw(port: int) -> AsyncIterator[Raw]:
    """Connect."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


async def hits(node: RunningNode, limit: str) -> int:
    """How often the status page says that a limit was reached."""
    count = (await node.status())["limits"][limit]
    assert isinstance(count, int)
    return count


# Connections


async def test_more_connections_than_there_is_room_for() -> None:
    async with running_node(limits__connections=2) as node:
        async with raw(node.client_port) as first, raw(node.client_port) as second:
            assert b" 101 " in await first.ask(UPGRADE)
            assert b" 101 " in await second.ask(UPGRADE)
            async with raw(node.client_port) as third:
                head = await third.ask(UPGRADE)
                assert b" 503 " in head
                assert b"\r\nRetry-After: 10\r\n" in head
                assert json.loads(await third.end())["code"] == "too_many_connections"
            async with raw(node.client_port) as balancer:
                assert b" 503 " in await balancer.ask(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await hits(node, "limits.connections") == 2
        await eventually_async(lambda: is_let_in(node), "room")


async def is_let_in(node: RunningNode) -> bool:
    async with raw(node.client_port) as another:
        return b" 101 " in await another.ask(UPGRADE)


async def test_a_flood_beyond_the_room_is_closed_and_leaves_the_others_alone() -> None:
    async with running_node(limits__connections=1) as node:
        browser = await subscribed(node.url(), "A")
        flood = [await asyncio.open_connection("127.0.0.1", node.client_port) for _ in range(100)]
        await eventually_async(
            lambda: has_hits(node, "limits.connections", 68), "those that were closed at once"
        )
        await node.publish({"subscribers": ["A"]})
        await receive(browser, 1)
        for _, writer in flood:
            writer.close()
        await browser.close()
        await eventually_async(lambda: is_let_in(node), "room")


async def has_hits(node: RunningNode, limit: str, count: int) -> bool:
    return await hits(node, limit) >= count


async def test_pages_leave_room_when_they_are_answered() -> None:
    async with running_node(limits__connections=2) as node:
        for _ in range(10):
            status, _ = await node.ask("/status", port=node.client_port)
            assert status == 200
        for _ in range(10):
            async with raw(node.client_port) as page:
                assert b" 501 " in await page.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await page.end()


async def test_more_connections_than_an_address_may_have() -> None:
    async with running_node(limits__connections__address=1) as node:
        async with raw(node.client_port) as first, raw(node.client_port) as second:
            assert b" 101 " in await first.ask(UPGRADE)
            assert b" 429 " in await second.ask(UPGRADE)
        assert await hits(node, "limits.connections.address") == 1


def with_limits(settings: Settings, **limits: int | None) -> Settings:
    return msgspec.structs.replace(settings, limits=msgspec.structs.replace(settings.limits, **limits))


async def test_limits_are_read_again() -> None:
    async with running_node() as node, raw(node.client_port) as first:
        assert b" 101 " in await first.ask(UPGRADE)
        changed = with_limits(node.node.settings, connections_address=1, commands_burst=1, commands=1)
        node.node.prepare_reload(changed)()
        async with raw(node.client_port) as second:
            assert b" 429 " in await second.ask(UPGRADE)
        first.writer.write(PING * 2)
        await eventually_async(lambda: has_hits(node, "limits.commands", 1), "the first to be slowed down")
        node.node.prepare_reload(with_limits(changed, connections_address=None))()
        assert await is_let_in(node)


async def test_new_connections_in_a_second() -> None:
    async with running_node(limits__connections__second=8) as node:
        began = time.monotonic()
        assert all(await asyncio.gather(*(is_let_in(node) for _ in range(16))))
        assert 0.7 < time.monotonic() - began < 8
        assert await hits(node, "limits.connections.second") >= 1


async def test_behind_a_proxy_browsers_are_counted_and_not_the_proxy() -> None:
    trusting = {"proxy.trusted": ["127.0.0.1"]}
    async with running_node(client=trusting, limits__connections__address=1) as node:
        async with raw(node.client_port) as first, raw(node.client_port) as second:
            assert b" 101 " in await first.ask(brought_for("203.0.113.1", UPGRADE))
            assert b" 101 " in await second.ask(brought_for("203.0.113.2", UPGRADE))
            for request in (UPGRADE, EVENTS, POLL, STATUS):
                async with raw(node.client_port) as another:
                    assert b" 429 " in await another.ask(brought_for("203.0.113.1", request))
            node.node.prepare_reload(node.node.settings)()
            async with raw(node.client_port) as another:
                assert b" 429 " in await another.ask(brought_for("203.0.113.2", UPGRADE))
        assert await hits(node, "limits.connections.address") == 5


async def test_a_proxy_is_not_counted_among_the_browsers_of_its_network() -> None:
    proxy = "2001:db8::1"
    client = {"proxy.protocol": True, "proxy.trusted": [proxy]}
    async with contextlib.AsyncExitStack() as stack:
        node = await stack.enter_async_context(running_node(client=client, limits__connections__address=1))

        async def ask_for(browser: str) -> bytes:
            connection = await stack.enter_async_context(raw(node.client_port))
            connection.writer.write(v2(proxy))
            return await connection.ask(brought_for(browser, UPGRADE))

        assert b" 101 " in await ask_for("2001:db8::2")
        assert b" 101 " in await ask_for("2001:db8:0:1::2")
        assert b" 429 " in await ask_for("2001:db8::3")


def brought_for(browser: str, request: bytes) -> bytes:
    """The request as a proxy passes it on."""
    return request.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: %b\r\n\r\n" % browser.encode())


async def test_what_a_proxy_keeps_open_counts_for_nobody() -> None:
    """It serves another browser next, and this one comes back by another connection."""
    trusting = {"proxy.trusted": ["127.0.0.1"]}
    request = brought_for("203.0.113.1", POLL)
    async with (
        running_node(client=trusting, limits__connections__address=1) as node,
        raw(node.client_port) as first,
        raw(node.client_port) as second,
    ):
        for each in (first, second, first):
            assert b" 200 " in await each.ask_on(request)
            node.node.prepare_reload(node.node.settings)()


async def test_who_does_not_say_for_whom_it_is_takes_no_more_room_than_there_is() -> None:
    async with (
        running_node(client={"proxy.protocol": True}, limits__connections=40) as node,
        contextlib.AsyncExitStack() as stack,
    ):
        arriving = node.node.server.admission["client"].pending
        for _ in range(40):
            await stack.enter_async_context(raw(node.client_port))
        await eventually(lambda: arriving.used == 40)
        async with raw(node.client_port) as late:
            assert await late.end() == b""
        assert await hits(node, "limits.connections") == 1
        await stack.aclose()
        await eventually(lambda: arriving.used == 0)
        async with raw(node.client_port) as browser:
            assert b" 101 " in await browser.ask(v2("203.0.113.9") + UPGRADE)
        assert arriving.used == 0


async def test_a_balancers_own_check_is_served_and_not_counted() -> None:
    local, proxied = v2(None, command=0, family=0), v2("203.0.113.1")
    async with running_node(client={"proxy.protocol": True}, limits__connections=1) as node:
        async with raw(node.client_port) as browser, raw(node.client_port) as stranger:
            assert b" 101 " in await browser.ask(proxied + UPGRADE)
            for _ in range(3):
                async with raw(node.client_port) as check:
                    assert b" 200 " in await check.ask(local + STATUS)
            assert b" 503 " in await stranger.ask(proxied + UPGRADE)
        assert await hits(node, "limits.connections") == 1


@pytest.mark.parametrize("path", ["events", "poll"])
async def test_who_does_without_a_websocket_has_the_same_limits(path: str) -> None:
    limits: dict[str, Any] = {"limits__subscriptions": 1, "limits__name": 7, "limits__connections": 1}
    async with running_node(**limits) as node:
        for query in ("channel=A&channel=B", "channel=too%20long"):
            async with raw(node.client_port) as greedy:
                head = await greedy.ask(f"GET /{path}?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert b" 400 " in head
            await eventually(lambda: not connections(node), "the end")
        async with raw(node.client_port) as first, raw(node.client_port) as second:
            request = f"GET /{path}?channel=A HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            first.writer.write(request)
            await eventually(lambda: node.node.hub.connections == 1, "the listener")
            assert b" 503 " in await second.ask(request)
        found = (await node.status())["limits"]
        expected = dict.fromkeys(("limits.subscriptions", "limits.name", "limits.connections"), 1)
        assert {name: count for name, count in found.items() if count} == expected


async def test_polls_that_come_too_fast_are_read_later() -> None:
    async with running_node(limits__commands=10, limits__commands__burst=5) as node:
        async with raw(node.client_port) as flood:
            began = time.monotonic()
            for _ in range(15):
                assert b" 200 " in await flood.ask_on(POLL)
            assert 0.5 < time.monotonic() - began < 8
        assert await hits(node, "limits.commands") >= 1


@pytest.mark.parametrize(
    "request_", [POLL, b"OPTIONS /poll HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["GET", "OPTIONS"]
)
async def test_every_request_on_a_connection_that_is_kept_is_charged(request_: bytes, clock: Clock) -> None:
    async with running_node(limits__commands__burst=5) as node, raw(node.client_port) as flood:
        for _ in range(5):
            await flood.ask_on(request_)
        flood.writer.write(request_)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(flood.reader.read(1), SILENCE)
        assert await hits(node, "limits.commands") == 1
        clock.advance(node, 1)
        await flood.ask_on(b"")


@pytest.mark.parametrize("path", ["events", "poll"])
async def test_what_was_missed_costs_what_is_looked_at(path: str, clock: Clock) -> None:
    async with running_node(limits__commands__burst=20) as node:
        await node.publish(*({"subscribers": ["A"], "uniqueID": str(number)} for number in range(1000)))
        for after, expected in ((900, 0), (0, 1)):
            async with raw(node.client_port) as reader:
                request = f"GET /{path}?channel=A&after={after} HTTP/1.1\r\nHost: x\r\n\r\n"
                assert b" 200 " in await reader.ask(request.encode())
                assert await hits(node, "limits.commands") == expected


# Commands


async def test_commands_that_come_too_fast_are_read_later(clock: Clock) -> None:
    limits: dict[str, Any] = {"limits__commands": 40, "limits__commands__burst": 20}
    async with running_node(**limits) as node, connect(node.url()) as other, raw(node.client_port) as flood:
        await flood.ask(UPGRADE)
        flood.writer.write(PING * 60)
        await flood.gets(pongs=20)  # the burst, of which the head took one, and the one that is too much
        await command(other, "subscribe", ["A"])
        assert await hits(node, "limits.commands") == 1
        clock.advance(node, 0.5)
        await flood.gets(pongs=20)
        clock.advance(node, 1)
        await flood.gets(pongs=20)


async def test_fragments_count_too(clock: Clock) -> None:
    """Each costs the server as much as a command, and none need ever end."""
    begin, more = b"\x01\x80\0\0\0\0", b"\x00\x80\0\0\0\0"
    limits: dict[str, Any] = {"limits__commands": 10, "limits__commands__burst": 20}
    async with running_node(**limits) as node, raw(node.client_port) as flood:
        await flood.ask(UPGRADE)
        flood.writer.write(begin + more * 30 + PING)
        await flood.gets(pongs=1)
        flood.writer.write(PING)
        await flood.gets(pongs=0)
        clock.advance(node, 2)
        await flood.gets(pongs=1)


async def test_one_who_goes_away_while_paused_is_forgotten() -> None:
    async with running_node(limits__commands=1, limits__commands__burst=1) as node:
        async with raw(node.client_port) as flood:
            await flood.ask(UPGRADE)
            flood.writer.write(PING * 1000)
            await eventually_async(lambda: has_hits(node, "limits.commands", 1), "the pause")
            sock = flood.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no end
            flood.writer.transport.abort()
        await eventually_async(lambda: has_none(node), "its end")


async def has_none(node: RunningNode) -> bool:
    return bool((await node.status())["connections"] == 0)


async def test_a_paused_browser_still_gets_messages_and_is_closed_in_good_order() -> None:
    async with running_node(limits__commands=1, limits__commands__burst=2, drain__time=0.1) as node:
        browser = await subscribed(node.url(), "A")
        for _ in range(10):
            await browser.send(json.dumps({"command": "unsubscribe", "data": ["B"]}))
        await eventually_async(lambda: has_hits(node, "limits.commands", 1), "the pause")
        await node.publish({"subscribers": ["A"], "key": "value"})
        assert (await receive(browser, 1))[0]["key"] == "value"
        await node.node.drain()
        assert await closed_with(browser) == 1001


async def closed_with(browser: Any) -> int | None:
    """The code of the close frame that comes after whatever else comes."""
    try:
        while True:
            await asyncio.wait_for(browser.recv(), 10)
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else None


async def test_a_replay_costs_what_it_looks_at(clock: Clock) -> None:
    async with running_node(limits__commands=10, limits__commands__burst=50) as node:
        messages = [{"subscribers": ["A"], "number": number} for number in range(1000)]
        await node.publish(*messages)
        async with connect(node.url()) as browser, connect(node.url()) as other:
            for each, channel in ((browser, "A"), (other, "B")):
                await command(each, "subscribe", [channel])
            for _ in range(3):
                await browser.send(json.dumps({"command": "replay", "data": {"age": 60000}}))
                await other.send(json.dumps({"command": "replay", "data": {"age": 60000}}))
            await command(other, "subscribe", ["B"])
            await receive(browser, 2000)
            assert await hits(node, "limits.commands") == 1
            assert (await node.status())["messages.out"] == 2000
            clock.advance(node, 10)
            await receive(browser, 1000)


# Deadlines


async def test_a_head_that_comes_a_byte_at_a_time() -> None:
    async with running_node(limits__handshake=0.5) as node, raw(node.client_port) as slow:
        assert 0.4 < await slow.drips(bytes([each]) for each in UPGRADE) < 5
        with contextlib.suppress(ConnectionResetError):
            assert await slow.end() == b""
        assert await hits(node, "limits.handshake") == 1


async def test_a_tls_handshake_that_comes_a_byte_at_a_time(tmp_path: Path) -> None:
    """The deadline is one for TLS and the upgrade together, whatever has come by then."""
    files = self_signed().write(tmp_path)
    hello = client_hello()

    async with running_node(client=files.settings(), limits__handshake=0.5) as node:
        async with raw(node.client_port) as slow:
            assert 0.4 < await slow.drips(bytes([each]) for each in hello) < 5
        assert await hits(node, "limits.handshake") == 1
        assert not connections(node)


def client_hello() -> bytes:
    """What a TLS client begins with."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def test_who_finds_no_room_is_told_so_over_tls_too(tmp_path: Path) -> None:
    files = self_signed().write(tmp_path)
    trust = ssl.create_default_context(cafile=files.ca)

    async with (
        running_node(client=files.settings(), limits__connections=1) as node,
        connect(node.url(), ssl=trust),
    ):
        with pytest.raises(InvalidStatus) as refused:
            await connect(node.url(), ssl=trust)
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "10"


async def test_one_who_says_nothing() -> None:
    async with running_node(limits__handshake=0.3) as node, raw(node.client_port) as silent:
        assert await silent.end() == b""


async def test_very_many_who_say_nothing_end_together() -> None:
    async with running_node(limits__handshake=0.5) as node, contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(raw(node.client_port)) for _ in range(200)]
        began = time.monotonic()
        assert await asyncio.gather(*(each.end(20) for each in silent)) == [b""] * 200
        assert time.monotonic() - began < 4, "a few at each tick would take six seconds"


@pytest.mark.parametrize(
    ("framing", "byte"),
    [(b"Content-Length: 100000", b" "), (b"Transfer-Encoding: chunked", b"1\r\n \r\n")],
    ids=["length", "chunks"],
)
async def test_a_body_that_comes_a_byte_at_a_time(framing: bytes, byte: bytes) -> None:
    async with running_node(limits__body__time=0.5) as node, raw(node.admin_port) as slow:
        slow.writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % framing)
        assert 0.4 < await slow.drips(itertools.repeat(byte)) < 5
        assert await hits(node, "limits.body.time") == 1


async def test_a_publisher_that_asks_nothing(clock: Clock) -> None:
    async with running_node(limits__idle=20) as node, raw(node.admin_port) as idle:
        for _ in range(3):
            assert b" 200 " in await idle.ask_on(b"GET /status/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            clock.advance(node, 15)
        clock.advance(node, 10)
        await idle.end()
        assert await hits(node, "limits.idle") == 1


async def test_a_proxy_that_keeps_its_connection_after_a_poll(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_node() as node, raw(node.client_port) as proxy:
        assert b" 200 " in await proxy.ask_on(POLL)
        clock.advance(node, 9)
        assert b" 200 " in await proxy.ask_on(POLL)
        clock.advance(node, 9)
        clock.advance(node, 2)
        await proxy.end()
        assert (await hits(node, "limits.idle"), await hits(node, "limits.handshake")) == (1, 0)
    assert "limits.idle" not in caplog.text


async def test_one_who_does_not_answer_a_close_frame() -> None:
    async with running_node() as node, raw(node.client_port) as rude:
        await rude.ask(UPGRADE)
        rude.writer.write(b"\x83\x80\0\0\0\0")
        frame = await rude.end()
        assert (frame[0], frame[1], frame[2:4]) == (
            0x88,
            len(frame) - 2,
            b"\x03\xea",
        )  # 1002, and nothing after it
        began = time.monotonic()
        await eventually(lambda: not connections(node), "the end of the connection")
        assert 1.5 < time.monotonic() - began < 8


def connections(node: RunningNode) -> list[Connection]:
    """All that are open."""
    return node.node.server.connections()


# Publishing


async def test_a_list_of_too_many_messages() -> None:
    async with running_node(limits__batch=3) as node:
        message = {"subscribers": ["A"]}
        await node.publish(*[message] * 3)
        status, answer = await node.ask("/", method="POST", body=json.dumps([message] * 4))
        assert (status, answer["code"]) == (413, "too_many_messages")
        assert await hits(node, "limits.batch") == 1


async def test_a_message_for_too_many_channels() -> None:
    async with running_node(limits__channels=3) as node:
        await node.publish({"subscribers": ["A", "B", "C"]})
        status, _ = await node.ask("/", method="POST", body='{"subscribers": [1, 2, 3, 4]}')
        assert status == 413
        assert await hits(node, "limits.channels") == 1


@pytest.mark.parametrize("options", [(), ("-H", "Transfer-Encoding: chunked")], ids=["length", "chunks"])
async def test_a_body_as_large_as_it_may_be(options: tuple[str, ...]) -> None:
    body = '{"subscribers": ["A"]}'
    async with running_node(limits__body=len(body)) as node:
        for sent, status, count in ((body, 200, 0), (body + " ", 413, 1)):
            answer = await curl(f"http://127.0.0.1:{node.admin_port}/", "-d", sent, *options)
            assert answer.status == status
            assert await hits(node, "limits.body") == count


async def test_a_list_is_taken_until_too_many_deliveries_wait() -> None:
    async with running_node(limits__delivery_queue=10) as node:
        browsers = [await subscribed(node.url(), "A") for _ in range(3)]
        messages = [
            {"subscribers": ["A"], "uniqueID": str(number), "number": number} for number in range(1024)
        ]
        rest, refusals = messages, 0
        while rest:
            status, answer = await node.ask("/", method="POST", body=json.dumps(rest))
            assert node.node.hub.fan_out.queued <= 10 + 3
            taken = [receipt["uniqueID"] for receipt in answer.get("receipts", ())]
            assert taken == [message["uniqueID"] for message in rest[: len(taken)]]
            assert status == (200 if len(taken) == len(rest) else 503)
            refusals += status == 503
            rest = rest[len(taken) :]
        for browser in browsers:
            assert [each["number"] for each in await receive(browser, 1024)] == list(range(1024))
        assert await hits(node, "limits.delivery_queue") == refusals > 1


async def test_more_deliveries_than_may_wait() -> None:
    async with running_node(limits__delivery_queue=1000) as node:
        browser = await subscribed(node.url(), "A")
        messages = [{"subscribers": ["A"], "number": number} for number in range(600)]
        await node.publish(*messages)
        node.node.hub.fan_out.queued += 2000
        async with raw(node.admin_port) as publisher:
            body = json.dumps({"subscribers": ["A"]}).encode()
            head = await publisher.ask(
                b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
        assert b" 503 " in head
        assert b"\r\nRetry-After: 1\r\n" in head
        node.node.hub.fan_out.queued -= 2000
        assert [each["number"] for each in await receive(browser, 600)] == list(range(600))
        await node.publish({"subscribers": ["A"], "number": 600})
        assert [each["number"] for each in await receive(browser, 1)] == [600]
        assert await hits(node, "limits.delivery_queue") == 1


# What was counted already


async def test_what_is_refused_is_counted() -> None:
    async with running_node(limits__subscriptions=1, limits__name=7, limits__client_frame=100) as node:
        async with connect(node.url()) as browser:
            assert (await command(browser, "subscribe", ["A", "B"]))["type"] == "error"
            assert (await command(browser, "subscribe", ["too long"]))["type"] == "error"
            await browser.send("x" * 101)
            assert await closed_with(browser) == 1009
        await node.ask("/", method="POST", body='{"subscribers": ["too long"]}')
        await node.ask("/", method="POST", body=" " * (1 << 20 | 1))
        async with raw(node.client_port) as large:
            assert b" 431 " in await large.ask(b"GET / HTTP/1.1\r\nX: " + b"x" * 9000)
        async with raw(node.client_port) as long:
            assert b" 400 " in await long.ask(UPGRADE.replace(b"/ws/", b"/ws/~too%20long/"))
        found = (await node.status())["limits"]
        assert {name: count for name, count in found.items() if count} == {
            "limits.subscriptions": 1,
            "limits.name": 3,
            "limits.client_frame": 1,
            "limits.body": 1,
            "limits.request_head": 1,
        }


async def test_messages_that_the_history_has_no_room_for_are_counted() -> None:
    async with running_node(limits__history=10_000) as node:
        await node.publish(*[{"subscribers": ["A"]}] * 100)
        status = await node.status()
        assert status["history.size"] + status["limits"]["limits.history"] == 100


async def test_silence_is_counted(clock: Clock) -> None:
    async with running_node(ping__interval=20, ping__timeout=50) as node, raw(node.client_port) as dead:
        await dead.ask(UPGRADE)
        for _ in range(5):
            assert not node.node.hub.limit_counters.counts
            clock.advance(node, 11)
        assert await dead.end() == b"\x89\0" * 2
        await eventually(lambda: node.node.hub.limit_counters.counts.get("ping.timeout") == 1, "the count")


async def test_what_was_counted_is_summed_up_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("aphlict.server.server.LOG_INTERVAL", 0.1)
    async with running_node() as node:
        for _ in range(3):
            node.node.hub.limit_counters.add("limits.request_head", "192.0.2.1")
        await eventually(
            lambda: "limits.request_head reached by 192.0.2.1 2 more times" in caplog.text, "the sum"
        )
