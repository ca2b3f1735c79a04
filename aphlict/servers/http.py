"""Requests that are no WebSocket, served with Tornado's HTTP/1.1."""

import logging
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import responses
from typing import Any, Protocol
from urllib.parse import parse_qs

from msgspec.json import encode as encode_json
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError

from aphlict.errors import AphlictError, NoBodyHere, PublishRefused
from aphlict.hits import Hits
from aphlict.net.connection import Connection
from aphlict.net.requests import RequestConnection
from aphlict.net.surroundings import Doorkeeper
from aphlict.wire.handshake import Request, origin_form

log = logging.getLogger(__name__)

MAX_ARGUMENTS = 2048  # in a query
ANY_BODY = 1 << 62  # Tornado's own check answers 400: ours, made before a byte is kept, answers 413
ANY_HEAD = 1 << 30  # it was read before, and was within `limits.head` as that is now
NO_HEADERS: Mapping[str, str] = {}
CLOSE = {"Connection": "close"}


class Handler(Protocol):
    """What answers requests."""

    def handle(self, exchange: "Exchange", /) -> None:
        """Answer a whole request, now or later; an AphlictError that is raised becomes the answer."""


class Exchange:
    """One request and its answer. The names in `headers` are lower-case."""

    def __init__(
        self, method: str, target: str, headers: Mapping[str, str], address: str, hits: Hits
    ) -> None:
        self.method = method
        self.path, _, self._query = target.partition("?")
        self.headers = headers
        self.address = address
        self.body = b""
        self._hits = hits
        self._answered = False

    @property
    def query(self) -> dict[str, list[str]]:
        """The arguments in the target; raises PublishRefused where they cannot be read."""
        if not self._query:
            return {}
        try:
            text = self._query.encode("latin-1").decode()  # UTF-8 may come without percent-encoding
            return parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_ARGUMENTS)
        except ValueError as error:
            raise PublishRefused("the query is not UTF-8 in percent-encoding, or too long") from error

    def argument(self, name: str) -> str | None:
        """The last value of a query argument."""
        values = self.query.get(name)
        return values[-1] if values else None

    def handle_with(self, handler: Handler) -> None:
        """Let the handler answer; what it raises becomes the answer."""
        try:
            handler.handle(self)
        except AphlictError as error:
            log.debug("refused %s %s of %s: %s", self.method, self.path, self.address, error)
            self.fail(error)
        except Exception:
            log.exception("internal error on %s %s; please report this", self.method, self.path)
            self.fail(AphlictError("internal error; the log of the server says more"))

    def fail(self, error: AphlictError) -> None:
        """Answer with an error's status and sentence; the connection ends."""
        if error.limit is not None:
            self._hits.add(error.limit, self.address)
        headers = (
            dict(CLOSE) if error.retry_after is None else {**CLOSE, "Retry-After": str(error.retry_after)}
        )
        self.answer_json(error.http_status, {"error": str(error)}, headers)

    def answer_json(self, status: int, value: Any, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """Answer with JSON."""
        self.answer(status, encode_json(value), {"Content-Type": "application/json", **headers})

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Answer; only the first answer counts."""
        if not self._answered:
            self._answered = True
            self._send(status, body, headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        raise NotImplementedError


class DirectExchange(Exchange):
    """A request that our own connection has read; it may be followed by another."""

    def __init__(self, connection: RequestConnection, request: Request, body: bytes) -> None:
        hits = connection.context.hits
        super().__init__(request.method, request.target, request.headers, connection.address, hits)
        self.body = body
        self._connection = connection
        self._keep = request.keeps_alive()

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        last = not self._keep or headers.get("Connection") == "close"
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if last and "Connection" not in headers:
            lines += "Connection: close\r\n"
        start = f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}"
        head = f"{start}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode("latin-1")
        self._connection.answer(head if self.method == "HEAD" else head + body, last=last)


class TornadoExchange(Exchange, HTTPMessageDelegate):
    """A request that Tornado reads, which has no body; the connection ends after it."""

    def __init__(self, handler: Handler, connection: HTTPConnection, address: str, hits: Hits) -> None:
        super().__init__("", "", NO_HEADERS, address, hits)
        self._handler = handler
        self._connection = connection

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        """Part of Tornado's interface: the head is here."""
        assert isinstance(start_line, RequestStartLine)
        lower = {name.lower(): value for name, value in headers.items()}
        target = origin_form(start_line.path)
        Exchange.__init__(self, start_line.method, target, lower, self.address, self._hits)
        if "transfer-encoding" in lower or int(lower.get("content-length", 0)):
            self.fail(NoBodyHere("this is a client port, which takes no body: publish to the admin port"))

    def finish(self) -> None:
        """Part of Tornado's interface: the request is whole."""
        if not self._answered:
            self.handle_with(self._handler)

    def on_connection_close(self) -> None:
        """Part of Tornado's interface: the other side went away before it was answered."""
        self._answered = True

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        fields = HTTPHeaders({**headers, **CLOSE})
        if status != HTTPStatus.NOT_MODIFIED:  # it would have to be that of the body which is not sent
            fields["Content-Length"] = str(len(body))
        start = ResponseStartLine("HTTP/1.1", status, responses.get(status, "Unknown"))
        _forget(self._connection.write_headers(start, fields, b"" if self.method == "HEAD" else body))
        self._connection.finish()


def _forget(future: Any) -> None:
    """Let a write fail quietly where the other side has gone."""
    future.add_done_callback(lambda done: None if done.cancelled() else _check(done.exception()))


def _check(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, StreamClosedError):
        log.error("cannot answer a request: %s", error)


class _Exchanges(HTTPServerConnectionDelegate):
    """Makes a TornadoExchange of the first request on each connection that Tornado's server reads."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._served: set[object] = set()

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Part of Tornado's interface. What was sent behind a request comes even where the connection is closed
        already: it is left alone, as our own rules for what is a request were not applied to it."""
        if server_conn in self._served:
            return HTTPMessageDelegate()
        self._served.add(server_conn)
        address = getattr(getattr(request_conn, "context", None), "remote_ip", None) or "a local socket"
        stream = getattr(request_conn, "stream", None)
        assert isinstance(stream, _Resumed)
        return TornadoExchange(self._handler, request_conn, address, stream.hits)

    def on_close(self, server_conn: object) -> None:
        """Part of Tornado's interface."""
        self._served.discard(server_conn)


class _Resumed:
    """Makes a stream begin with bytes that were read before (`read_from_fd` is Tornado's hook for it), and tells
    of its end."""

    before = b""
    hits: Hits
    on_end: Callable[[], None]

    def close_fd(self) -> None:
        super().close_fd()  # type: ignore[misc]
        self.on_end()

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        before = self.before
        if not before:
            return super().read_from_fd(buf)  # type: ignore[misc, no-any-return]
        size = min(len(buf), len(before))
        buf[:size] = before[:size]
        self.before = before[size:]
        return size


class ResumedStream(_Resumed, IOStream):
    """A plain stream of which the beginning was read already."""


class ResumedTLSStream(_Resumed, SSLIOStream):
    """A TLS stream of which the beginning was read already."""


class HandOver:
    """Tornado's server, which takes over a connection of ours together with the bytes that were read from it."""

    def __init__(self, handler: Handler) -> None:
        self._taken: dict[IOStream, tuple[str | None, Doorkeeper]] = {}
        self._server = HTTPServer(
            _Exchanges(handler),
            no_keep_alive=True,  # or it would read what follows by rules that are less strict than ours
            max_body_size=ANY_BODY,
            max_header_size=ANY_HEAD,
        )

    def addresses(self, door: Doorkeeper) -> list[str]:
        """Where those come from that came in by a door and are being served."""
        return [address for address, by in self._taken.values() if by is door and address is not None]

    def take(self, connection: Connection, before: bytes) -> None:
        """Serve what `connection` has read, `before`, and what follows. All of it has `limits.body.time`."""
        context, address, counted = connection.context, connection.address, connection.counted
        sock = connection.detach()
        stream = ResumedTLSStream(sock) if isinstance(sock, ssl.SSLSocket) else ResumedStream(sock)
        stream.before = before
        stream.hits = context.hits
        stream.on_end = lambda: self._on_end(stream)
        self._taken[stream] = counted, context.door
        end = context.deadlines.now + context.limits.limits_body_time
        context.deadlines.add(_Overdue(stream, address, context.hits), end)
        self._server.handle_stream(stream, (address, 0))

    def _on_end(self, stream: IOStream) -> None:
        address, door = self._taken.pop(stream)
        door.leave(address)

    async def close(self) -> None:
        """End all that was taken over."""
        await self._server.close_all_connections()


class _Overdue:
    """Ends a stream that takes too long, with its request or with its answer."""

    def __init__(self, stream: IOStream, address: str, hits: Hits) -> None:
        self._stream = stream
        self._address = address
        self._hits = hits

    def on_deadline(self, _now: float, /) -> None:
        """Part of the interface of Timed."""
        if not self._stream.closed():
            self._hits.add("limits.body.time", self._address)
            self._stream.close()
