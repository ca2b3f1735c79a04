"""Objects are released when they end, not when their deadline passes."""

import asyncio
import gc
import itertools
import socket
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from aphlict.server.timer_wheel import HasDeadline
from tests.server.test_tokens import guarded
from tests.support.clocks import Clock
from tests.support.heads import head
from tests.support.nodes import RunningNode, running_node
from tests.support.proxied import v2
from tests.support.tokens import token
from tests.support.waiting import eventually

TIMES = 20
NUMBERS = itertools.cycle(range(1, 255))

Visit = Callable[[RunningNode], Awaitable[None]]


def alive() -> int:
    """How many connections, event streams, polls and terms there are, whether anything still needs them or not."""
    # The type, since `isinstance` asks a weak proxy for what it refers to.
    return sum(issubclass(type(each), HasDeadline) for each in gc.get_objects())


async def ask(node: RunningNode, *requests: bytes, reset: bool = False) -> None:
    """Send requests over one connection, each after the answer to the one before, and leave. What each of them owes
    is not the next one's."""
    address = f"127.0.1.{next(NUMBERS)}", 0
    reader, writer = await asyncio.open_connection("127.0.0.1", node.client_port, local_addr=address)
    for request in requests:
        writer.write(request)
        assert await asyncio.wait_for(reader.read(100_000), 20)
    if reset:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.close()


def get(path: str, *fields: str) -> bytes:
    return head(f"GET {path} HTTP/1.1", {"Host": "x"} | dict(field.split(": ") for field in fields))


async def poll_until_a_message(node: RunningNode) -> None:
    polling = asyncio.create_task(ask(node, get("/poll?channel=a&wait=60")))
    await eventually(lambda: node.node.hub.connections == 1)
    await node.publish({"subscribers": ["a"]})
    await polling


VISITS: dict[str, Visit] = {
    "a poll that is answered": poll_until_a_message,
    "polls on one connection": lambda node: ask(node, *[get("/poll?channel=a&wait=0")] * 5),
    "a poll that is given up": lambda node: ask(node, get("/poll?channel=a&wait=0"), reset=True),
    "an event stream": lambda node: ask(node, get("/events?channel=a")),
    "the state": lambda node: ask(node, get("/status")),
    "the script": lambda node: ask(node, get("/aphlict.js")),
    "a page that is not there": lambda node: ask(node, get("/")),
    "a refusal": lambda node: ask(node, get("/poll")),
    "no request": lambda node: ask(node, b"\0"),
    "a WebSocket": lambda node: ask(node, head()),
    "a WebSocket that is reset": lambda node: ask(node, head(), reset=True),
    "a WebSocket that is paused": lambda node: ask(node, head(), b"\x89\x80\0\0\0\0" * 500, reset=True),
}


@pytest.mark.parametrize("visit", VISITS)
async def test_nothing_remains_of_a_closed_connection(visit: str, clock: Clock) -> None:
    """The clock stands still and the garbage collector is off: no deadline releases anything."""
    async with running_node(limits__commands__burst=100) as node:
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(TIMES):
                await VISITS[visit](node)
            await eventually(lambda: alive() <= before, "the release of all")
        finally:
            gc.enable()


@pytest.mark.parametrize("visit", ["poll?channel=a&wait=0", "events?channel=a", "ws/"])
async def test_nothing_remains_of_a_connection_with_a_token(visit: str, clock: Clock, tmp_path: Path) -> None:
    shown = f"Bearer {token('a')}"
    plain = {"Host": "x", "Authorization": shown}
    request = head(Authorization=shown) if visit == "ws/" else head(f"GET /{visit} HTTP/1.1", plain)
    async with running_node(client=guarded(tmp_path)) as node:
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(TIMES):
                await ask(node, request)
            await eventually(lambda: alive() <= before, "the release of all")
        finally:
            gc.enable()


async def test_nothing_remains_of_a_connection_with_a_proxy_header(clock: Clock) -> None:
    async with running_node(client={"proxy.protocol": True}) as node:
        before = alive()
        for _ in range(TIMES):
            await ask(node, v2("192.0.2.1") + get("/status"))
        await eventually(lambda: alive() <= before, "the release of all")


async def test_health_checks_use_no_memory(clock: Clock) -> None:
    requests = 500
    async with running_node() as node:
        for _ in range(requests):
            await ask(node, get("/status"))
        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(requests):
                await ask(node, get("/status"))
            await eventually(lambda: not node.node.server.connections())
            gc.collect()
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert taken / requests < 500, "bytes of each request that are kept"
