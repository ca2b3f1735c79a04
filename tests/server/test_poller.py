"""The poller: all have their turn, and so has other work of the loop."""

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from aphlict.server.poller import MAX_BATCH, MAX_TURN_SECONDS, Poller

CROWD = 5 * MAX_BATCH


class Slow:
    """Takes as long for an event as all of a turn may take."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.turns = 0

    def on_events(self, _events: int, /) -> None:
        """Part of the interface of the poller's Handler."""
        self.turns += 1
        until = time.monotonic() + MAX_TURN_SECONDS
        while time.monotonic() < until:
            pass

    def on_error(self) -> None:
        """Part of the interface of the poller's Handler."""


@pytest.fixture
def crowd() -> Iterator[list[Slow]]:
    """Sockets that always have something to be read."""
    pairs = [socket.socketpair() for _ in range(CROWD)]
    for _, other in pairs:
        other.send(b"a")
    yield [Slow(sock) for sock, _ in pairs]
    for pair in pairs:
        for sock in pair:
            sock.close()


async def test_a_turn_is_short_and_nobody_is_passed_over(crowd: list[Slow]) -> None:
    poller = Poller()
    for each in crowd:
        poller.register(each.sock.fileno(), each)
    poller.start()
    served = before = 0
    while served < CROWD:
        await asyncio.sleep(0)
        before, served = served, sum(each.turns for each in crowd)
        assert served - before in (0, MAX_BATCH)
    assert {each.turns for each in crowd} == {1}
    poller.close()


async def test_a_walk_finds_what_is_registered_all_the_time(crowd: list[Slow]) -> None:
    poller = Poller()
    poller.start()
    for each in crowd:
        poller.register(each.sock.fileno(), each)
    walk = poller.walk()
    found = [next(each for each in walk if each is not None)]
    [gone, *others] = [each for each in crowd if each not in found]
    poller.unregister(gone.sock.fileno())
    found += [each for each in walk if isinstance(each, Slow)]
    assert set(map(id, others)) <= set(map(id, found)) <= set(map(id, crowd)) - {id(gone)}
    assert len(found) == len(crowd) - 1
    poller.close()
