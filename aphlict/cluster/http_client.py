"""A kept-alive HTTP/1.1 connection to another node, one request at a time."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple, TypeGuard

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError, UnsatisfiableReadError
from tornado.tcpclient import TCPClient
from tornado.util import TimeoutError as TornadoTimeout

from aphlict.config.files import Read, read_file
from aphlict.errors import (
    BadResponse,
    CertificateError,
    PeerDisconnected,
    PeerError,
    PeerTimeout,
    PeerTLSError,
    PeerUnreachable,
)
from aphlict.protocol.addresses import host_port
from aphlict.protocol.http import NODE_FIELD
from aphlict.tls.context import client_context

MOST_BUFFERED = 2 * 1024 * 1024


class Address(NamedTuple):
    """Where an admin server is, and whom to believe that it is the one: the authorities in the file `ca`, or
    those that the system trusts. `cert` with `key`, and `secret`, are what it is shown where it asks who comes."""

    host: str
    port: int
    https: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    secret: str | None = None
    read: Read = read_file  # for those files

    @property
    def files(self) -> list[bytes | None]:
        """What `ca`, `cert` and `key` hold. Raises OSError."""
        return [None if path is None else self.read(path) for path in (self.ca, self.cert, self.key)]

    @property
    def authority(self) -> str:
        """host:port as in a URL."""
        return host_port(self.host, self.port)

    def __str__(self) -> str:
        return f"{'https' if self.https else 'http'}://{self.authority}"


async def dial(address: Address, timeout: float) -> IOStream:
    """Connect; the name is looked up each time. Raises PeerError, also after `timeout` seconds for the
    connection or as many for the TLS handshake."""
    try:
        plain = await _connect(address, timeout)
        return await _secure(plain, address, timeout) if address.https else plain
    except (CertificateError, OSError, ValueError) as error:
        raise _explain(error) from error


async def _connect(address: Address, timeout: float) -> IOStream:
    client = TCPClient()
    try:
        return await client.connect(
            address.host, address.port, max_buffer_size=MOST_BUFFERED, timeout=timeout
        )
    except (asyncio.TimeoutError, TornadoTimeout) as error:
        raise PeerTimeout(f"no connection within {timeout:g} s") from error
    finally:
        client.close()


async def _secure(plain: IOStream, address: Address, timeout: float) -> SSLIOStream:
    """Shake hands before the stream is made: a stream's own handshake logs a warning for each failure, and
    a peer is tried again and again."""
    bare: socket.socket = plain.socket.dup()
    plain.close()
    try:
        # hundreds of certificates: 20 ms
        context = await asyncio.to_thread(client_context, address.ca, address.cert, address.key, address.read)
        bare = secure = context.wrap_socket(bare, server_hostname=address.host, do_handshake_on_connect=False)
        await asyncio.wait_for(_shake_hands(secure), timeout)
        return SSLIOStream(secure, max_buffer_size=MOST_BUFFERED)
    except asyncio.TimeoutError as error:
        bare.close()
        raise PeerTimeout(f"no TLS handshake within {timeout:g} s") from error
    except BaseException:
        bare.close()
        raise


async def _shake_hands(secure: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while (waits_for := _try_handshake(secure)) is not None:
        if waits_for is ssl.SSLWantReadError:
            await _ready(secure, loop.add_reader, loop.remove_reader)
        else:
            await _ready(secure, loop.add_writer, loop.remove_writer)


def _try_handshake(secure: ssl.SSLSocket) -> type[ssl.SSLError] | None:
    """What the handshake waits for; None when it is done."""
    try:
        secure.do_handshake()
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
        return type(error)
    return None


async def _ready(
    sock: ssl.SSLSocket, add: Callable[..., None], remove: Callable[[ssl.SSLSocket], bool]
) -> None:
    ready = asyncio.Event()
    add(sock, ready.set)
    try:
        await ready.wait()
    finally:
        remove(sock)


def _explain(error: Exception) -> PeerError:
    """The sentence for what kept a connection from being made."""
    cause = error.real_error if isinstance(error, StreamClosedError) and error.real_error else error
    if isinstance(cause, CertificateError):
        return PeerTLSError(str(cause))
    if isinstance(cause, ssl.SSLCertVerificationError):
        return PeerTLSError(f"its certificate is not accepted: {cause.verify_message}")
    if isinstance(cause, ssl.SSLError):
        return PeerTLSError(f"TLS could not be set up: {cause.reason or cause}")
    if isinstance(cause, (socket.gaierror, ValueError)):
        reason = cause.strerror if isinstance(cause, socket.gaierror) else cause
        return PeerUnreachable(f"its name cannot be looked up: {reason}")
    if isinstance(cause, ConnectionRefusedError):
        return PeerUnreachable("the connection was refused")
    return PeerUnreachable(f"no connection can be made: {getattr(cause, 'strerror', None) or cause}")


MOST_HEAD = 16 * 1024
MOST_BODY = 1024 * 1024
CERTIFICATE_WANTED = "if it has ssl.ca, it wants another certificate of this node, see ssl.cert of that peer"


@dataclass(frozen=True)
class Answer:
    """A whole answer, whatever its status."""

    status: int
    reason: str
    body: bytes


class HttpConnection:
    """Connects with `connect`, then carries one request at a time until either side closes it.

    `own` is the fingerprint of this node; `on_close` is called when the other side closes it between two requests.
    """

    def __init__(self, address: Address, own: str, timeout: float, on_close: Callable[[], None]) -> None:
        self.address = address  # from the next connection and the next request on
        self._own = own
        self._timeout = timeout
        self._on_close = on_close
        self._stream: IOStream | None = None
        self._has_answered = False  # over this connection

    @property
    def is_open(self) -> bool:
        """Whether a request can be tried without connecting first."""
        return self._stream is not None and not self._stream.closed()

    async def connect(self, timeout: float) -> None:
        """Connect anew within `timeout` seconds. Raises PeerError."""
        self.close()
        self._has_answered = False
        address, stream = self.address, await dial(self.address, timeout)
        while address is not self.address:  # which may not trust what the old one trusted
            stream.close()
            address, stream = self.address, await dial(self.address, timeout)
        self._stream = stream

    def close(self) -> None:
        """Close it, without calling `on_close`."""
        if self._stream is not None:
            self._stream.set_close_callback(None)
            self._stream.close()
            self._stream = None

    async def request(self, method: str, target: str, body: bytes = b"") -> Answer:
        """One request and its answer. Raises PeerError, after which the connection is closed."""
        if self._stream is None:
            raise PeerDisconnected("the connection was closed")
        reader = _Reader()
        try:
            await asyncio.wait_for(self._exchange(self._stream, reader, method, target, body), self._timeout)
            answer = reader.answer()
        except asyncio.TimeoutError as error:
            self.close()
            raise PeerTimeout(f"it did not answer within {self._timeout:g} s") from error
        except PeerError as error:
            self.close()
            if isinstance(error, PeerDisconnected) and self.address.https and not self._has_answered:
                raise PeerDisconnected(f"{error} before its first answer: {CERTIFICATE_WANTED}") from error
            raise
        self._has_answered = True
        self._keep(reader)
        return answer

    async def _exchange(
        self, stream: IOStream, reader: "_Reader", method: str, target: str, body: bytes
    ) -> None:
        parameters = HTTP1ConnectionParameters(max_header_size=MOST_HEAD, max_body_size=MOST_BODY)
        # One of these is good for one request only; it is the stream that is kept.
        connection = HTTP1Connection(stream, True, parameters, context=self.address)
        try:
            connection.write_headers(RequestStartLine(method, target, ""), self._head(body), body or None)
            connection.finish()
            await connection.read_response(reader)
        except StreamClosedError as error:
            if _is_alert(error.real_error):
                raise _refused(error.real_error) from error
            reader.is_cut = not isinstance(error.real_error, UnsatisfiableReadError)
        except ssl.SSLError as error:
            if not _is_alert(error):
                raise PeerDisconnected(f"it ended TLS: {error.reason or error}") from error
            raise _refused(error) from error

    def _head(self, body: bytes) -> HTTPHeaders:
        head = HTTPHeaders({"Host": self.address.authority, NODE_FIELD: self._own})
        if self.address.secret is not None:
            head["Authorization"] = f"Bearer {self.address.secret}"
        if body:
            head["Content-Type"] = "application/json"
            head["Content-Length"] = str(len(body))
        return head

    def _keep(self, reader: "_Reader") -> None:
        if self._stream is None:
            return
        if reader.closes or self._stream.closed():
            self.close()
        else:
            self._stream.set_close_callback(self._on_close)


def _is_alert(error: BaseException | None) -> TypeGuard[ssl.SSLError]:
    """Whether the other side said why it ends TLS: that it wants a certificate, it says after the handshake."""
    return isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "")


def _refused(error: ssl.SSLError) -> PeerTLSError:
    reason = error.reason
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return PeerTLSError(f"it ended TLS ({reason}): {CERTIFICATE_WANTED}")
    return PeerTLSError(f"it ended TLS: {reason}")


class _Reader(HTTPMessageDelegate):
    """Collects one answer, as Tornado reads it."""

    def __init__(self) -> None:
        self.is_cut = False  # the connection ended while the answer was awaited
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

    def answer(self) -> Answer:
        """What was read. Raises PeerError."""
        if self._start is None:
            raise (
                PeerDisconnected("it closed the connection")
                if self.is_cut
                else BadResponse("its answer is not HTTP")
            )
        code = self._start.code
        if HTTPStatus.MULTIPLE_CHOICES <= code < HTTPStatus.BAD_REQUEST:
            raise BadResponse(
                f"it answered {code}, a redirect to {self._location[:200] or 'nowhere'}: "
                "a peer has to be the admin server itself"
            )
        if not self.is_finished:
            raise BadResponse(f"its answer ({code}) broke off or is longer than {MOST_BODY} bytes")
        return Answer(code, self._start.reason, bytes(self._body))
