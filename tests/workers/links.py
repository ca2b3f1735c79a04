"""Hubs, edges and the streams between them, all in the process of the test."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aphlict.config.settings import Limits
from aphlict.core.hub import Hub, Recovery
from aphlict.core.message import Message
from aphlict.core.state import HubState, describe
from aphlict.workers.edge_requests import STATS
from aphlict.workers.edge_side import HubConnector, NoForwarder
from aphlict.workers.hub_side import EdgePool
from aphlict.workers.ipc import PackedMessage, pack
from tests.support.hub import join
from tests.support.waiting import eventually

ORIGIN = "hubhub01"  # that of a hub that the test plays
MEBIBYTE = 1024 * 1024


def make_hub(history: int = 64 * MEBIBYTE, origin: str = ORIGIN) -> Hub:
    """A hub that keeps messages of so many bytes."""
    return Hub("f" * 16, NoForwarder(), Limits(history=history), lambda: None, time.monotonic(), origin)


def make_edge(history: int = 64 * MEBIBYTE, wake: Callable[[], None] = lambda: None) -> Hub:
    """The hub of an edge that has just been started."""
    edge = Hub("f" * 16, NoForwarder(), Limits(history=history), wake, time.monotonic())
    edge.origins.is_complete = False
    return edge


def state_of_new_hub(origin: str = ORIGIN) -> HubState:
    """The state of a hub that has no messages."""
    return describe(make_hub(origin=origin))


def make_message(name: str, size: int = 0, number: int = 0, origin: str = ORIGIN) -> Message:
    """A message with so many bytes of text; with a number, one that a hub has accepted."""
    fields = b'{"uniqueID":"%b","text":"%b"' % (name.encode(), b"x" * size)
    return Message("default", name, ("A", "B"), (), fields, origin if number else "", number)


def packed(*names: str, first: int = 1, origin: str = ORIGIN) -> list[PackedMessage]:
    """Messages that a hub has accepted just now, with numbers in a row."""
    now = time.monotonic()
    return [pack(make_message(name, 0, number, origin), now) for number, name in enumerate(names, first)]


def listening() -> tuple[socket.socket, str]:
    """A listening Unix socket, and its abstract name (unix(7))."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.bind("")  # the kernel chooses the name
    sock.listen()
    return sock, "\0" + sock.getsockname()[1:].decode()


@asynccontextmanager
async def kept(keeper: HubConnector) -> AsyncIterator[None]:
    """Keep a link for a while; it has ended when this returns."""
    keeper.start()
    task = keeper._task
    assert task is not None
    try:
        yield
    finally:
        keeper.close()
        await asyncio.wait({task})


@asynccontextmanager
async def joined(edge: Hub, address: str, gaps: list[float] | None = None) -> AsyncIterator[HubConnector]:
    """Keep an edge connected that is up to date; `gaps` receives the times of its gaps."""
    keeper = HubConnector(edge, address, lambda: None if gaps is None else gaps.append(time.monotonic()))
    async with kept(keeper):
        await asyncio.wait_for(keeper.up_to_date.wait(), 20)
        yield keeper


@asynccontextmanager
async def distributing(hub: Hub) -> AsyncIterator[tuple[EdgePool, str]]:
    """Accept edges, at the address that is returned; they have to be disconnected at the end."""
    sock, address = listening()
    distribution = EdgePool(hub, 1)
    await distribution.start(sock)
    try:
        yield distribution, address
    finally:
        await eventually(lambda: answered(distribution) == 0, "the end of the edges")
        distribution.close()


def answered(distribution: EdgePool) -> int | None:
    """Return 0 if there are no edges, and None if their responses are pending."""
    reported: list[int] = []
    distribution.ask(STATS, "", lambda each: reported.append(len(each)))
    return reported[0] if reported else None


def publish(pool: EdgePool, *names: str, size: int = 0) -> None:
    """Publish messages at the hub of a pool, without waiting for the receipts."""
    pool.publish([make_message(name, size) for name in names], time.monotonic(), lambda _receipts: None)


def token(hub: Hub, *channels: str) -> str:
    """Return the resume token of a client that has everything that the hub has."""
    while hub.run_slice():
        pass
    _, subscriber = join(hub, *(channels or ("A",)))
    made = hub.resume_token(subscriber, time.monotonic())
    hub.leave(subscriber)
    assert made is not None
    return made


def resume(hub: Hub, *after: str) -> tuple[list[str], bool]:
    """Resume on channel A: the uniqueIDs that a client receives, and whether these are all."""
    results: list[Recovery] = []
    fake, subscriber = join(hub, "A")
    hub.replay_after(subscriber, after, time.monotonic(), results.append)
    while hub.run_slice():
        pass
    hub.leave(subscriber)
    [result] = results
    assert result.messages == len(fake.ids)
    return fake.ids, result.recovered
