"""A publisher's connection while its answer is awaited."""

import socket

from aphlict.config.settings import Limits
from aphlict.core.stats import LimitCounters
from aphlict.protocol.http import Request
from aphlict.server.connection import State
from aphlict.server.context import PortContext, ServerContext
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.limits import NoLimit
from aphlict.server.poller import GONE, READ, WRITE

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


def waiting_connection() -> tuple[HTTPConnection, socket.socket]:
    """A connection whose request has not been answered yet, and the publisher's side of it."""
    sock, publisher = socket.socketpair()
    sock.setblocking(False)
    port = PortContext(ServerContext(Limits(), LimitCounters(), 0.0), NoLimit(), is_trusted=True)
    connection = HTTPConnection(sock, "a", port, Silent())
    publisher.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    connection.on_events(READ)
    return connection, publisher


def test_an_event_from_before_the_pause_is_no_end() -> None:
    connection, publisher = waiting_connection()
    connection.on_events(READ)
    connection.respond(b"answer", keep_alive=False)
    assert publisher.recv(100) == b"answer"
    connection.abort("the end")
    publisher.close()


def test_who_goes_away_is_not_waited_for() -> None:
    connection, publisher = waiting_connection()
    connection.on_events(GONE)
    assert connection.state is State.CLOSED
    connection.respond(b"answer", keep_alive=True)
    publisher.close()


def test_no_answer_takes_the_place_of_one_that_was_dropped() -> None:
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
