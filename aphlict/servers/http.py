"""Requests that are no WebSocket, served with Tornado's HTTP/1.1."""

import logging
import socket
from collections.abc import Mapping
from http.client import responses
from typing import Any, Protocol
from urllib.parse import parse_qs

from msgspec.json import encode as encode_json
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError

from aphlict.errors import AphlictError, BodyTooLarge, PublishRefused

log = logging.getLogger(__name__)


class Handler(Protocol):
    """What answers requests."""

    @property
    def body_limit(self) -> int:
        """Bytes that the body of a request may have."""

    def handle(self, exchange: "Exchange", /) -> None:
        """Answer a whole request, now or later; an AphlictError that is raised becomes the answer."""


class Exchange(HTTPMessageDelegate):
    """One request and its answer."""

    def __init__(self, handler: Handler, connection: HTTPConnection, address: str, *, keep: bool) -> None:
        self._handler = handler
        self._connection = connection
        self._keep = keep  # whether the connection may bear another request
        self._chunks: list[bytes] = []
        self._size = 0
        self._answered = False
        self.address = address
        self.method = ""
        self.path = ""
        self.query: dict[str, list[str]] = {}
        self.headers = HTTPHeaders()

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        """Part of Tornado's interface: the head is here."""
        assert isinstance(start_line, RequestStartLine)
        self.method, self.headers = start_line.method, headers
        self.path, _, query = start_line.path.partition("?")
        try:
            self.query = parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=2048)
        except ValueError:
            self.fail(PublishRefused("the query is not UTF-8 in percent-encoding, or too long"))
        self._check_size(int(headers.get("Content-Length", "0")))

    def data_received(self, chunk: bytes) -> None:
        """Part of Tornado's interface: a piece of the body."""
        if not self._answered:
            self._size += len(chunk)
            self._chunks.append(chunk)
            self._check_size(self._size)

    def _check_size(self, size: int) -> None:
        """Refuse a body before more of it is kept."""
        limit = self._handler.body_limit
        if size > limit and not self._answered:
            self._chunks.clear()
            self.fail(BodyTooLarge(f"the body is larger than {limit} bytes"))

    def finish(self) -> None:
        """Part of Tornado's interface: the request is whole."""
        if self._answered:
            return
        try:
            self._handler.handle(self)
        except AphlictError as error:
            log.debug("refused %s %s of %s: %s", self.method, self.path, self.address, error)
            self.fail(error)
        except Exception:
            log.exception("internal error on %s %s; please report this", self.method, self.path)
            self.fail(AphlictError("internal error; the log of the server says more"))

    def on_connection_close(self) -> None:
        """Part of Tornado's interface: the other side went away before it was answered."""
        self._answered = True

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self._chunks)

    def argument(self, name: str) -> str | None:
        """The last value of a query argument."""
        values = self.query.get(name)
        return values[-1] if values else None

    def fail(self, error: AphlictError) -> None:
        """Answer with an error's status and sentence; the connection ends."""
        self._keep = False
        self.answer_json(error.http_status, {"error": str(error)})

    def answer_json(self, status: int, value: Any, headers: Mapping[str, str] = {}) -> None:
        """Answer with JSON."""
        self.answer(status, encode_json(value), {"Content-Type": "application/json", **headers})

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Answer; only the first answer counts."""
        if self._answered:
            return
        self._answered = True
        fields = HTTPHeaders({**headers, "Content-Length": str(len(body))})
        if not self._keep:
            fields["Connection"] = "close"
        start = ResponseStartLine("HTTP/1.1", status, responses.get(status, "Unknown"))
        _forget(self._connection.write_headers(start, fields, b"" if self.method == "HEAD" else body))
        self._connection.finish()


def _forget(future: Any) -> None:
    """Let a write fail quietly where the other side has gone."""
    future.add_done_callback(lambda done: None if done.cancelled() else _check(done.exception()))


def _check(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, StreamClosedError):
        log.error("cannot answer a request: %s", error)


class Exchanges(HTTPServerConnectionDelegate):
    """Makes an Exchange of each request that Tornado's server reads."""

    def __init__(self, handler: Handler, *, keep: bool) -> None:
        self._handler = handler
        self._keep = keep

    def start_request(self, _server: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Part of Tornado's interface."""
        address = getattr(getattr(request_conn, "context", None), "remote_ip", None) or "a local socket"
        return Exchange(self._handler, request_conn, address, keep=self._keep)


class _Resumed:
    """Makes a stream begin with bytes that were read before (`read_from_fd` is Tornado's hook for it)."""

    before = b""

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


def resume(sock: socket.socket, before: bytes, *, tls: bool) -> IOStream:
    """Make a stream of a connected socket: it begins with the bytes `before`. Runs in the loop."""
    stream = ResumedTLSStream(sock) if tls else ResumedStream(sock)
    stream.before = before
    return stream
