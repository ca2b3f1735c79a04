"""A connection whose other side does not take what it is sent, or is gone."""

import socket
from collections.abc import Iterator

import pytest

from aphlict.config.settings import Limits
from aphlict.core.stats import LimitCounters
from aphlict.server.connection import Application, Connection, Context
from aphlict.server.context import Surroundings
from aphlict.server.limits import NoLimit
from aphlict.server.poller import WRITE
from aphlict.server.sending import State

LARGE = 1 << 20  # bytes: more than the kernel holds for one side
ROOM = 3 * LARGE + 200_000  # bytes for three of them, and what comes with each


class Pair:
    """A WebSocket connection of the server, and the browser's side of it."""

    def __init__(self, surroundings: Surroundings, address: str) -> None:
        sock, self.browser = socket.socketpair()
        sock.setblocking(False)
        self.connection = Connection(sock, address, Context(Application(), NoLimit(), surroundings))
        self.connection.state = State.OPEN


@pytest.fixture
def surroundings() -> Surroundings:
    """With room for what waits of three large frames."""
    return Surroundings(Limits(send_buffer_total=ROOM), LimitCounters(), 0.0)


@pytest.fixture
def pairs(surroundings: Surroundings) -> Iterator[list[Pair]]:
    """Four browsers that read nothing."""
    made = [Pair(surroundings, address) for address in "abcd"]
    yield made
    for each in made:
        each.connection.abort("the end")
        each.browser.close()


def test_who_is_gone_is_sent_nothing(pairs: list[Pair]) -> None:
    one, other, *_ = pairs
    one.browser.close()
    other.browser.close()
    one.connection.send_all(iter((b"a", b"b")))
    other.connection.send(b"a")
    for each in (one, other):
        assert each.connection.state is State.CLOSED
        each.connection.send_all(iter((b"a",)))
        each.connection.send(b"a")


def test_a_first_frame_may_be_larger_than_what_may_wait(pairs: list[Pair]) -> None:
    pairs[0].connection.context.limits = Limits(send_buffer=1000)
    pairs[0].connection.send(bytes(LARGE))
    assert pairs[0].connection.state is State.OPEN


def test_who_takes_what_is_left_bit_by_bit_is_waited_for(pairs: list[Pair]) -> None:
    connection, browser = pairs[0].connection, pairs[0].browser
    connection.send(bytes(LARGE))
    connection.close(1001)
    for second in (2, 4, 6):
        browser.recv(LARGE)
        connection.on_events(WRITE)
        assert connection.on_deadline(second) == second + 2
    assert connection.on_deadline(8) is None
    assert connection.state is State.CLOSED


def test_who_takes_nothing_of_what_is_left_is_not_waited_for(pairs: list[Pair]) -> None:
    connection = pairs[0].connection
    connection.send(bytes(LARGE))
    connection.close(1001)
    assert connection.on_deadline(1) == 2
    assert connection.on_deadline(2) is None
    assert connection.state is State.CLOSED


@pytest.mark.parametrize("at_once", [True, False])
def test_first_frames_do_not_wait_where_there_is_no_room(
    pairs: list[Pair], surroundings: Surroundings, at_once: bool
) -> None:
    """Each is another one, as in a replay: it is made for this browser alone."""
    for each in pairs:
        frame = bytes(LARGE)
        if at_once:
            each.connection.send(frame)
        else:
            each.connection.send_all(iter((frame,)))
    states = [each.connection.state for each in pairs]
    assert states == [State.CLOSED] + [State.OPEN] * 3, "the one that has waited for longest is closed"
    assert surroundings.pool.used <= ROOM
    assert surroundings.hits.counts == {"limits.send_buffer.total": 1}


def test_the_frames_of_replays_do_not_wait_where_there_is_no_room(
    pairs: list[Pair], surroundings: Surroundings
) -> None:
    """They are made when there is room in the socket, which may be long after they were asked for."""
    small = bytes(20_000)
    for each in pairs:
        each.connection.send_all(small if number < 20 else bytes(LARGE) for number in range(22))
    assert surroundings.pool.used < LARGE
    for each in pairs:
        left = 20 * len(small)
        while left > 0 and each.connection.state is State.OPEN:
            left -= len(each.browser.recv(left))
            each.connection.on_events(WRITE)
    assert surroundings.pool.used <= ROOM
    assert [each.connection.state for each in pairs].count(State.OPEN) == 3
