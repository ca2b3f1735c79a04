"""HTTP connections: responses that are awaited, buffered or followed by an upgrade."""

import socket

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
from aphlict.server.poller import GONE, READ, WRITE
from aphlict.server.websocket_connection import Session, WebSocket
from tests.support.heads import head

LARGE = 100_000  # bytes: more than the socket takes


class Silent:
    """A handler that does not respond."""

    max_body_size = 1000

    def check_head(self, connection: HTTPConnection, request: Request, /) -> None:
        """Accept every request."""

    def on_request(self, connection: HTTPConnection, request: Request, body: bytes, /) -> None:
        """Do not respond yet."""


class Repeating(Silent):
    """Responds with the body of the request, many times over."""

    def on_request(self, connection: HTTPConnection, request: Request, body: bytes, /) -> None:
        """Respond."""
        connection.respond(body * LARGE, keep_alive=True)


class Upgrading(Silent):
    """Upgrades to WebSockets, after a large response to any other request."""

    def __init__(self) -> None:
        self.websockets: list[WebSocket] = []

    def on_request(self, connection: HTTPConnection, request: Request, body: bytes, /) -> None:
        """Respond or upgrade."""
        if request.wants_websocket():
            connection.upgrade(request, self.open_session)
        else:
            connection.respond(b"a" * LARGE * 10, keep_alive=True)

    def open_session(self, websocket: WebSocket) -> Session:
        """Keep the WebSocket."""
        self.websockets.append(websocket)
        return self

    def on_message(self, websocket: WebSocket, message: WSMessage, /) -> None:
        """Do nothing."""

    def on_close(self, websocket: WebSocket, _reason: str, _cause: Cause, /) -> None:
        """Do nothing."""


class Failing(Upgrading):
    """Has a bug in the code that opens a session."""

    def open_session(self, websocket: WebSocket) -> Session:
        """Fail."""
        super().open_session(websocket)
        raise RuntimeError


def client_connection(handler: Upgrading) -> tuple[HTTPConnection, socket.socket]:
    """A connection to a client port, and the client's socket."""
    sock, client = socket.socketpair()
    sock.setblocking(False)
    port = PortContext(ServerContext(Limits(), LimitCounters(), 0.0), NoLimit(), is_trusted=False)
    return HTTPConnection(sock, "a", port, handler), client


def waiting_connection() -> tuple[HTTPConnection, socket.socket]:
    """A connection whose response is awaited, and the publisher's socket."""
    sock, publisher = socket.socketpair()
    sock.setblocking(False)
    port = PortContext(ServerContext(Limits(), LimitCounters(), 0.0), NoLimit(), is_trusted=True)
    connection = HTTPConnection(sock, "a", port, Silent())
    publisher.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    connection.on_events(READ)
    return connection, publisher


def test_a_stale_event_does_not_close_a_paused_connection() -> None:
    connection, publisher = waiting_connection()
    connection.on_events(READ)
    connection.respond(b"answer", keep_alive=False)
    assert publisher.recv(100) == b"answer"
    connection.abort("the end")
    publisher.close()


def test_a_publisher_that_closes_before_the_response() -> None:
    connection, publisher = waiting_connection()
    connection.on_events(GONE)
    assert connection.state is State.CLOSED
    connection.respond(b"answer", keep_alive=True)
    publisher.close()


def test_no_response_follows_one_that_was_dropped() -> None:
    """A request has begun to arrive, and the budget is full of what others do not read."""
    sock, publisher = socket.socketpair()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sock.setblocking(False)
    server = ServerContext(Limits(send_buffer_total=10 * LARGE), LimitCounters(), 0.0)
    connection = HTTPConnection(sock, "a", PortContext(server, NoLimit(), is_trusted=True), Repeating())
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
    publisher.sendall(head + b"a" + head + b"b" + head)
    connection.on_events(READ)
    server.buffer_budget.add(bytes(17 * LARGE // 2))  # room for one of the two answers
    publisher.recv(100)
    connection.on_events(WRITE)
    assert connection.state is State.CLOSED
    assert server.limit_counters.counts == {"limits.send_buffer.total": 1}
    assert server.buffer_budget.used < 10 * LARGE
    publisher.settimeout(10)
    while data := publisher.recv(LARGE):
        assert not data.strip(b"a")
    publisher.close()


def test_an_upgrade_while_the_previous_response_is_buffered() -> None:
    handler = Upgrading()
    connection, client = client_connection(handler)
    budget = connection.port.server.buffer_budget
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    connection.on_events(READ)
    assert budget.held(connection) > 0
    client.sendall(head())
    connection.on_events(READ)
    [websocket] = handler.websockets
    assert (budget.held(connection), connection.state) == (0, State.CLOSED)
    assert budget.held(websocket) > 0
    received = b""
    while b"HTTP/1.1 101 " not in received:
        received += client.recv(LARGE)
        websocket.on_events(WRITE)
    assert received.partition(b"HTTP")[0] == b"a" * LARGE * 10
    assert budget.used == 0
    websocket.abort("the end")
    client.close()


def test_a_session_that_cannot_be_opened_closes_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    handler = Failing()
    connection, client = client_connection(handler)
    client.sendall(head())
    connection.on_events(READ)
    assert [each.state for each in handler.websockets] == [State.CLOSED]
    assert client.recv(LARGE).startswith(b"HTTP/1.1 101 ")
    assert client.recv(LARGE) == b""
    assert "internal error" in caplog.text
    client.close()
