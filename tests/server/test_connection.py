"""Connections whose client is slow, or has closed."""

import socket
from collections.abc import Iterator

import pytest

from aphlict.config.settings import Limits
from aphlict.core.metrics import Cause
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

    def on_close(self, websocket: WebSocket, _reason: str, _cause: Cause, /) -> None:
        """Do nothing."""


class Pair:
    """A WebSocket, and the client's socket."""

    connection: WebSocket

    def __init__(self, server: ServerContext, address: str) -> None:
        sock, self.client = socket.socketpair()
        sock.setblocking(False)
        self.client.sendall(head())
        port = PortContext(server, NoLimit(), is_trusted=False)
        HTTPConnection(sock, address, port, Upgrading(self)).on_events(READ)
        assert self.client.recv(1000).startswith(b"HTTP/1.1 101 ")


@pytest.fixture
def server() -> ServerContext:
    """A context with room for three large frames in the send buffers."""
    return ServerContext(Limits(send_buffer_total=ROOM), LimitCounters(), 0.0)


@pytest.fixture
def pairs(server: ServerContext) -> Iterator[list[Pair]]:
    """Four clients that receive nothing."""
    made = [Pair(server, address) for address in "abcd"]
    yield made
    for each in made:
        each.connection.abort("the end")
        each.client.close()


def test_nothing_is_sent_on_a_lost_connection(pairs: list[Pair]) -> None:
    one, other, *_ = pairs
    one.client.close()
    other.client.close()
    one.connection.send_all(iter((b"a", b"b")))
    other.connection.send(b"a")
    for each in (one, other):
        assert each.connection.state is State.CLOSED
        each.connection.send_all(iter((b"a",)))
        each.connection.send(b"a")


def test_a_first_frame_may_exceed_the_send_buffer(pairs: list[Pair]) -> None:
    pairs[0].connection.port.server.limits = Limits(send_buffer=1000)
    pairs[0].connection.send(bytes(LARGE))
    assert pairs[0].connection.state is State.WEBSOCKET


def test_a_slow_client_may_receive_the_last_bytes(pairs: list[Pair]) -> None:
    connection, client = pairs[0].connection, pairs[0].client
    connection.send(bytes(LARGE))
    connection.close(1001)
    for second in (2, 4, 6):
        client.recv(LARGE)
        connection.on_events(WRITE)
        assert connection.on_deadline(second) == second + 2
    assert connection.on_deadline(8) is None
    assert connection.state is State.CLOSED


def test_a_client_that_receives_nothing_is_aborted(pairs: list[Pair]) -> None:
    connection = pairs[0].connection
    connection.send(bytes(LARGE))
    connection.close(1001)
    assert connection.on_deadline(1) == 2
    assert connection.on_deadline(2) is None
    assert connection.state is State.CLOSED


@pytest.mark.parametrize("immediate", [True, False])
def test_first_frames_are_bounded_by_the_budget(
    pairs: list[Pair], server: ServerContext, immediate: bool
) -> None:
    """No frame is shared, as in a replay."""
    for each in pairs:
        frame = bytes(LARGE)
        if immediate:
            each.connection.send(frame)
        else:
            each.connection.send_all(iter((frame,)))
    states = [each.connection.state for each in pairs]
    assert states == [State.CLOSED] + [State.WEBSOCKET] * 3, "the one that has waited longest is closed"
    assert server.buffer_budget.used <= ROOM
    assert server.limit_counters.counts == {"limits.send_buffer.total": 1}


def test_frames_of_replays_are_bounded_by_the_budget(pairs: list[Pair], server: ServerContext) -> None:
    """They are made when the socket has room, which may be long after the replay was requested."""
    small = bytes(20_000)
    for each in pairs:
        each.connection.send_all(small if number < 20 else bytes(LARGE) for number in range(22))
    assert server.buffer_budget.used < LARGE
    for each in pairs:
        left = 20 * len(small)
        while left > 0 and each.connection.state is State.WEBSOCKET:
            left -= len(each.client.recv(left))
            each.connection.on_events(WRITE)
    assert server.buffer_budget.used <= ROOM
    assert [each.connection.state for each in pairs].count(State.WEBSOCKET) == 3
