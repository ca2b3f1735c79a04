"""A kept-alive HTTP/1.1 connection to a peer's admin server, and what its responses mean."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple, TypeGuard

import msgspec
from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError, UnsatisfiableReadError
from tornado.tcpclient import TCPClient
from tornado.util import TimeoutError as TornadoTimeout

from aphlict.config.files import Read, read_file
from aphlict.core.sequencer import Report
from aphlict.errors import (
    BadResponse,
    CertificateError,
    PeerDisconnected,
    PeerError,
    PeerHTTPError,
    PeerTimeout,
    PeerTLSError,
    PeerUnreachable,
)
from aphlict.protocol.addresses import host_port
from aphlict.protocol.http import NODE_FIELD, ORIGIN_FIELD
from aphlict.tls.ssl_context import client_context

MAX_BUFFER = 2 * 1024 * 1024  # bytes
MAX_HEAD = 16 * 1024  # bytes
MAX_BODY = 1024 * 1024  # bytes
MAX_REASON = 200  # characters of the peer's own sentence
CERTIFICATE_HINT = "if it has ssl.ca, it expects another certificate of this node: see ssl.cert of that peer"


class PeerAddress(NamedTuple):
    """The address of an admin server, and the credentials for both sides.

    `ca` has the authorities to trust, None those of the system. `cert` with `key`, and `secret`, authenticate this
    node. `read` reads these files.
    """

    host: str
    port: int
    https: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    secret: str | None = None
    read: Read = read_file

    @property
    def files(self) -> list[bytes | None]:
        """The contents of `ca`, `cert` and `key`. Raises OSError."""
        return [None if path is None else self.read(path) for path in (self.ca, self.cert, self.key)]

    @property
    def authority(self) -> str:
        """host:port as in a URL."""
        return host_port(self.host, self.port)

    def __str__(self) -> str:
        return f"{'https' if self.https else 'http'}://{self.authority}"


@dataclass(frozen=True)
class PeerResponse:
    """A complete response, whatever its status."""

    status: int
    reason: str
    body: bytes


class PeerConnection:
    """Connects with `connect`, then carries one request at a time until either side closes it.

    `fingerprint` is that of this node, `greeting` returns ORIGIN_FIELD. `on_close` is called when the peer closes the
    connection between two requests.
    """

    def __init__(
        self,
        address: PeerAddress,
        fingerprint: str,
        timeout: float,
        on_close: Callable[[], None],
        greeting: Callable[[], str],
    ) -> None:
        self.address = address  # a change applies to the next connection and the next request
        self._fingerprint = fingerprint
        self._greeting = greeting
        self._timeout = timeout  # seconds for a response
        self._on_close = on_close
        self._stream: IOStream | None = None
        self._has_responded = False  # on this connection
        self.round_trip: float | None = None  # seconds, of the last request that was answered

    @property
    def is_open(self) -> bool:
        """Whether a request can be tried without connecting first."""
        return self._stream is not None and not self._stream.closed()

    async def connect(self, timeout: float) -> None:
        """Connect; the name is resolved each time. Raises PeerError, also after `timeout` seconds for the connection
        or as many for the TLS handshake."""
        self.close()
        self._has_responded = False
        address, stream = self.address, await _open_stream(self.address, timeout)
        while address is not self.address:  # the new address may trust other authorities
            stream.close()
            address, stream = self.address, await _open_stream(self.address, timeout)
        self._stream = stream

    def close(self) -> None:
        """Close it, without calling `on_close`."""
        if self._stream is not None:
            self._stream.set_close_callback(None)
            self._stream.close()
            self._stream = None

    async def request(self, method: str, target: str, body: bytes = b"") -> PeerResponse:
        """Send a request and return the response. Raises PeerError; then the connection is closed."""
        if self._stream is None:
            raise PeerDisconnected("the connection was closed")
        reader, begin = _ResponseReader(), time.monotonic()
        try:
            await asyncio.wait_for(self._exchange(self._stream, reader, method, target, body), self._timeout)
            response = reader.response()
        except asyncio.TimeoutError as error:
            self.close()
            raise PeerTimeout(f"it did not respond within {self._timeout:g} s") from error
        except PeerError as error:
            self.close()
            if isinstance(error, PeerDisconnected) and self.address.https and not self._has_responded:
                raise PeerDisconnected(f"{error} before its first response: {CERTIFICATE_HINT}") from error
            raise
        self._has_responded = True
        self.round_trip = time.monotonic() - begin
        self._keep(reader)
        return response

    async def _exchange(
        self, stream: IOStream, reader: "_ResponseReader", method: str, target: str, body: bytes
    ) -> None:
        parameters = HTTP1ConnectionParameters(max_header_size=MAX_HEAD, max_body_size=MAX_BODY)
        # An HTTP1Connection is good for one request only; the stream is kept.
        connection = HTTP1Connection(stream, True, parameters, context=self.address)
        try:
            connection.write_headers(RequestStartLine(method, target, ""), self._head(body), body or None)
            connection.finish()
            await connection.read_response(reader)
        except StreamClosedError as error:
            if _is_alert(error.real_error):
                raise _alert_error(error.real_error) from error
            reader.is_cut = not isinstance(error.real_error, UnsatisfiableReadError)
        except ssl.SSLError as error:
            if not _is_alert(error):
                raise PeerDisconnected(f"TLS failed: {error.reason or error}") from error
            raise _alert_error(error) from error

    def _head(self, body: bytes) -> HTTPHeaders:
        head = HTTPHeaders({"Host": self.address.authority, NODE_FIELD: self._fingerprint})
        head[ORIGIN_FIELD] = self._greeting()
        if self.address.secret is not None:
            head["Authorization"] = f"Bearer {self.address.secret}"
        if body:
            head["Content-Type"] = "application/json"
            head["Content-Length"] = str(len(body))
        return head

    def _keep(self, reader: "_ResponseReader") -> None:
        if self._stream is None:
            return
        if reader.closes or self._stream.closed():
            self.close()
        else:
            self._stream.set_close_callback(self._on_close)


async def _open_stream(address: PeerAddress, timeout: float) -> IOStream:
    try:
        plain = await _connect(address, timeout)
        return await _start_tls(plain, address, timeout) if address.https else plain
    except (CertificateError, OSError, ValueError) as error:
        raise _connect_error(error) from error


async def _connect(address: PeerAddress, timeout: float) -> IOStream:
    client = TCPClient()
    try:
        return await client.connect(address.host, address.port, max_buffer_size=MAX_BUFFER, timeout=timeout)
    except (asyncio.TimeoutError, TornadoTimeout) as error:
        raise PeerTimeout(f"no connection within {timeout:g} s") from error
    finally:
        client.close()


async def _start_tls(plain: IOStream, address: PeerAddress, timeout: float) -> SSLIOStream:
    """`IOStream.start_tls` would leave the socket open after a timeout."""
    sock: socket.socket = plain.socket.dup()
    plain.close()
    try:
        # Loading hundreds of certificates takes 20 ms.
        context = await asyncio.to_thread(client_context, address.ca, address.cert, address.key, address.read)
        secure = context.wrap_socket(sock, server_hostname=address.host, do_handshake_on_connect=False)
    except BaseException:
        sock.close()
        raise
    stream = SSLIOStream(secure, max_buffer_size=MAX_BUFFER)
    handshake = stream.wait_for_handshake()
    try:
        await asyncio.wait({handshake}, timeout=timeout)  # which leaves it uncancelled: Tornado expects that
        if not handshake.done():
            raise PeerTimeout(f"no TLS handshake within {timeout:g} s")
        return handshake.result()
    except BaseException:
        stream.close()
        raise


def _connect_error(error: Exception) -> PeerError:
    cause = error.real_error if isinstance(error, StreamClosedError) and error.real_error else error
    if isinstance(cause, CertificateError):
        return PeerTLSError(str(cause))
    if isinstance(cause, ssl.SSLCertVerificationError):
        return PeerTLSError(f"its certificate is not trusted: {cause.verify_message}")
    if isinstance(cause, ssl.SSLError):
        return PeerTLSError(f"the TLS handshake failed: {cause.reason or cause}")
    if isinstance(cause, (socket.gaierror, ValueError)):
        reason = cause.strerror if isinstance(cause, socket.gaierror) else cause
        return PeerUnreachable(f"its name cannot be resolved: {reason}")
    if isinstance(cause, ConnectionRefusedError):
        return PeerUnreachable("connection refused")
    return PeerUnreachable(f"cannot connect: {getattr(cause, 'strerror', None) or cause}")


def _is_alert(error: BaseException | None) -> TypeGuard[ssl.SSLError]:
    """Whether the peer sent a TLS alert. With TLS 1.3, it rejects a client certificate after the handshake."""
    return isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "")


def _alert_error(error: ssl.SSLError) -> PeerTLSError:
    reason = error.reason
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return PeerTLSError(f"it rejected TLS ({reason}): {CERTIFICATE_HINT}")
    return PeerTLSError(f"it rejected TLS: {reason}")


class _ResponseReader(HTTPMessageDelegate):
    """Collects one response, as Tornado parses it."""

    def __init__(self) -> None:
        self.is_cut = False  # the connection was closed before the response was complete
        self.is_finished = False
        self.closes = True
        self._start: ResponseStartLine | None = None
        self._location = ""
        self._body = bytearray()

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        assert isinstance(start_line, ResponseStartLine)
        self._start = start_line
        self._location = headers.get("Location", "")
        self.closes = start_line.version != "HTTP/1.1" or headers.get("Connection", "").lower() == "close"

    def data_received(self, chunk: bytes) -> None:
        self._body += chunk

    def finish(self) -> None:
        self.is_finished = True

    def on_connection_close(self) -> None:
        self.closes = True

    def response(self) -> PeerResponse:
        """The response. Raises PeerError if it is incomplete or a redirect."""
        if self._start is None and self.is_cut:
            raise PeerDisconnected("it closed the connection")
        if self._start is None:
            raise BadResponse("its response is not HTTP")
        status = self._start.code
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            raise BadResponse(
                f"it responded {status}, a redirect to {self._location[:200] or 'nowhere'}: "
                "a peer has to be the admin server itself"
            )
        if not self.is_finished:
            raise BadResponse(f"its response ({status}) is incomplete, or longer than {MAX_BODY} bytes")
        return PeerResponse(status, self._start.reason, bytes(self._body))


class PeerIdentity(NamedTuple):
    """The sender of a response. A Node.js server accepts no lists, and has a fingerprint only in receipts.

    `reports`: how far it is with each origin; only in its status, and not of a Node.js server.
    """

    fingerprint: str | None
    accepts_lists: bool
    reports: dict[str, Report] | None = None


class _Status(msgspec.Struct):
    version: int
    fingerprint: str | None = None
    origins: dict[str, Report] | None = None


class _Receipt(msgspec.Struct, rename={"unique_id": "uniqueID"}):
    fingerprint: str
    unique_id: str | None = None
    receipts: list[object] | None = None


class _ListReceipt(msgspec.Struct, rename={"unique_id": "uniqueID"}):
    unique_id: str


class _ErrorBody(msgspec.Struct):
    error: str


class _PartialReceipts(msgspec.Struct):
    receipts: list[_ListReceipt]


def read_status(response: PeerResponse) -> PeerIdentity:
    """Evaluate a response to GET /status/. Raises PeerError."""
    _raise_for_status(response)
    try:
        status = msgspec.json.decode(response.body, type=_Status)
    except msgspec.MsgspecError as error:
        raise BadResponse("its status is not that of an admin server") from error
    return PeerIdentity(status.fingerprint or None, bool(status.fingerprint), status.origins)


def read_receipt(response: PeerResponse) -> PeerIdentity:
    """Evaluate a response to a POST; its shape shows the kind of server. Raises PeerError."""
    _raise_for_status(response)
    try:
        receipt = msgspec.json.decode(response.body, type=_Receipt)
    except msgspec.MsgspecError as error:
        raise BadResponse("its receipt is not that of an admin server") from error
    accepts_lists = receipt.unique_id is not None or receipt.receipts is not None
    return PeerIdentity(receipt.fingerprint or None, accepts_lists=accepts_lists)


def read_body(response: PeerResponse) -> bytes:
    """Return the body of a successful response. Raises PeerError."""
    _raise_for_status(response)
    return response.body


def _raise_for_status(response: PeerResponse) -> None:
    if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
        raise PeerHTTPError(response.status, _reason(response), _count_published(response))


def _count_published(response: PeerResponse) -> int:
    """The number of messages of a list that were published before the rest was rejected."""
    if response.status != HTTPStatus.SERVICE_UNAVAILABLE:
        return 0
    try:
        return len(msgspec.json.decode(response.body, type=_PartialReceipts).receipts)
    except msgspec.MsgspecError:
        return 0


def _reason(response: PeerResponse) -> str:
    """The sentence of an error response, printable."""
    try:
        text = msgspec.json.decode(response.body, type=_ErrorBody).error
    except msgspec.MsgspecError:
        text = response.reason
    return "".join(char if char.isprintable() else " " for char in text[:MAX_REASON]) or "no reason given"
