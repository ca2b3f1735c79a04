"""Making a connection to another node: name look-up, TCP, TLS; each failure becomes a sentence."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple

from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.tcpclient import TCPClient
from tornado.util import TimeoutError as TornadoTimeout

from aphlict.config.files import Read, read_file
from aphlict.errors import CertificateError, PeerError, PeerNotTrusted, PeerSilent, PeerUnreachable
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
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

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
        raise PeerSilent(f"no connection within {timeout:g} s") from error
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
        raise PeerSilent(f"no TLS handshake within {timeout:g} s") from error
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
        return PeerNotTrusted(str(cause))
    if isinstance(cause, ssl.SSLCertVerificationError):
        return PeerNotTrusted(f"its certificate is not accepted: {cause.verify_message}")
    if isinstance(cause, ssl.SSLError):
        return PeerNotTrusted(f"TLS could not be set up: {cause.reason or cause}")
    if isinstance(cause, (socket.gaierror, ValueError)):
        reason = cause.strerror if isinstance(cause, socket.gaierror) else cause
        return PeerUnreachable(f"its name cannot be looked up: {reason}")
    if isinstance(cause, ConnectionRefusedError):
        return PeerUnreachable("the connection was refused")
    return PeerUnreachable(f"no connection can be made: {getattr(cause, 'strerror', None) or cause}")
