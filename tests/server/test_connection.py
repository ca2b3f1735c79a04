"""A connection whose other side does not take what it is sent, or is gone."""

import socket
from collections.abc import Iterator

import pytest

from aphlict.config.settings import Limits
from aphlict.core.stats import LimitCounters
from aphlict.protocol.http import Request
from aphlict.protocol.websocket import WSMessage
from aphlict.server.connection import State
from aphlict.server.context import PortContext, ServerContext
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.limits import NoLimit
from aphlict.server.poller import READ, WRITE
from aphlict.server.websocket_connection import Session, WebSocket
from tests.support.heads import head

LARGE = 1 << 20  # bytes: more than the kernel holds for one side
ROOM = 3 * LARGE + 200_000  # bytes for three of them, and what comes with each


class Upgrading:
    """A handler that upgrades every request. Its sessions do nothing."""

    max_body_size = 0

    def __init__(self, pair: "Pair") -> None:
        self.pair = pair

    def check_head(self, connection: HTTPConnection, request: Request, /) -> None:
        """Accept every request."""

    def on_request(self, connection: HTTPConnection, request: Request, body: bytes, /) -> None:
        """Upgrade."""
        connection.upgrade(request, self.open_session)

    def open_session(self, websocket: WebSocket) -> Session:
        """Keep the WebSocket."""
        self.pair.connection = websocket
        return self

    def on_message(self, websocket: WebSocket, message: WSMessage, /) -> None:
        """Do nothing."""

    def on_close(self, websocket: WebSocket, reason: str, /) -> None:
        """Do nothing."""


class Pair:
    """A WebSocket, and the client's socket."""

    connection: WebSocket

    def __init__(self, server: ServerContext, address: str) -> None:
        sock, self.browser = socket.socketpair()
        sock.setblocking(False)
        self.browser.sendall(head())
        port = PortContext(server, NoLimit(), is_trusted=False)
        HTTPConnection(sock, address, port, Upgrading(self)).on_events(READ)
        assert self.browser.recv(1000).startswith(b"HTTP/1.1 101 ")


@pytest.fixture
def server() -> ServerContext:
    """A context with room for three large frames in the send buffers."""
    return ServerContext(Limits(send_buffer_total=ROOM), LimitCounters(), 0.0)


@pytest.fixture
def pairs(server: ServerContext) -> Iterator[list[Pair]]:
    """Four browsers that read nothing."""
    made = [Pair(server, address) for address in "abcd"]
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
    pairs[0].connection.port.server.limits = Limits(send_buffer=1000)
    pairs[0].connection.send(bytes(LARGE))
    assert pairs[0].connection.state is State.WEBSOCKET


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
    pairs: list[Pair], server: ServerContext, at_once: bool
) -> None:
    """Each is another one, as in a replay: it is made for this browser alone."""
    for each in pairs:
        frame = bytes(LARGE)
        if at_once:
            each.connection.send(frame)
        else:
            each.connection.send_all(iter((frame,)))
    states = [each.connection.state for each in pairs]
    assert states == [State.CLOSED] + [State.WEBSOCKET] * 3, "the one that has waited for longest is closed"
    assert server.buffer_budget.used <= ROOM
    assert server.limit_counters.counts == {"limits.send_buffer.total": 1}


def test_the_frames_of_replays_do_not_wait_where_there_is_no_room(
    pairs: list[Pair], server: ServerContext
) -> None:
    """They are made when there is room in the socket, which may be long after they were asked for."""
    small = bytes(20_000)
    for each in pairs:
        each.connection.send_all(small if number < 20 else bytes(LARGE) for number in range(22))
    assert server.buffer_budget.used < LARGE
    for each in pairs:
        left = 20 * len(small)
        while left > 0 and each.connection.state is State.WEBSOCKET:
            left -= len(each.browser.recv(left))
            each.connection.on_events(WRITE)
    assert server.buffer_budget.used <= ROOM
    assert [each.connection.state for each in pairs].count(State.WEBSOCKET) == 3
