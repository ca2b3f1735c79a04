"""A publisher's connection while its answer is awaited."""

import socket

from aphlict.config.settings import Limits
from aphlict.core.stats import LimitCounters
from aphlict.protocol.http import Request
from aphlict.server.connection import Context
from aphlict.server.context import Surroundings
from aphlict.server.http_connection import RequestApplication, RequestConnection
from aphlict.server.limits import NoLimit
from aphlict.server.poller import GONE, READ, WRITE
from aphlict.server.sending import State

LARGE = 100_000  # bytes: more than the socket takes


class Silent(RequestApplication):
    """Leaves every request without an answer."""

    body_limit = 1000

    def on_head(self, connection: RequestConnection, request: Request, /) -> None:
        """Let it in."""

    def on_whole_request(self, connection: RequestConnection, request: Request, body: bytes, /) -> None:
        """Say nothing yet."""


class Repeating(Silent):
    """Answers a request with its body, many times over."""

    def on_whole_request(self, connection: RequestConnection, request: Request, body: bytes, /) -> None:
        """Answer."""
        connection.answer(body * LARGE, keep=True)


def waiting_connection() -> tuple[RequestConnection, socket.socket]:
    """A connection whose request has not been answered yet, and the publisher's side of it."""
    sock, publisher = socket.socketpair()
    sock.setblocking(False)
    surroundings = Surroundings(Limits(), LimitCounters(), 0.0)
    connection = RequestConnection(sock, "a", Context(Silent(), NoLimit(), surroundings))
    publisher.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    connection.on_events(READ)
    return connection, publisher


def test_an_event_from_before_the_pause_is_no_end() -> None:
    connection, publisher = waiting_connection()
    connection.on_events(READ)
    connection.answer(b"answer", keep=False)
    assert publisher.recv(100) == b"answer"
    connection.abort("the end")
    publisher.close()


def test_who_goes_away_is_not_waited_for() -> None:
    connection, publisher = waiting_connection()
    connection.on_events(GONE)
    assert connection.state is State.CLOSED
    connection.answer(b"answer", keep=True)
    publisher.close()


def test_no_answer_takes_the_place_of_one_that_was_dropped() -> None:
    """A request has begun to arrive, and the budget is full of what others do not read."""
    sock, publisher = socket.socketpair()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sock.setblocking(False)
    surroundings = Surroundings(Limits(send_buffer_total=10 * LARGE), LimitCounters(), 0.0)
    connection = RequestConnection(sock, "a", Context(Repeating(), NoLimit(), surroundings))
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
    publisher.sendall(head + b"a" + head + b"b" + head)
    connection.on_events(READ)
    surroundings.pool.add(bytes(17 * LARGE // 2))  # room for one of the two answers
    publisher.recv(100)
    connection.on_events(WRITE)
    assert connection.state is State.CLOSED
    assert surroundings.hits.counts == {"limits.send_buffer.total": 1}
    assert surroundings.pool.used < 10 * LARGE
    publisher.settimeout(10)
    while data := publisher.recv(LARGE):
        assert not data.strip(b"a")
    publisher.close()
