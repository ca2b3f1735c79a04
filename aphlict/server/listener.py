"""Accepts connections: a listening socket, the PROXY header, and the limits that admit or reject a connection."""

import errno
import logging
import socket
import ssl
from collections.abc import Callable, Collection, Iterable

from tornado.ioloop import IOLoop

from aphlict import log_events
from aphlict.config.settings import ServerSettings, Settings
from aphlict.core.stats import LimitCounters
from aphlict.errors import BadProxyHeader, BadRequest, TooManyConnections, TooManyPublishers
from aphlict.protocol import proxy_protocol
from aphlict.protocol.forwarded import TrustedProxies
from aphlict.protocol.http import Request
from aphlict.protocol.proxy_protocol import V1_LIMIT, V2_HEAD, V2_LIMIT, ProxyHeader
from aphlict.server.access import AdminAccess, HostNames, OriginAccess
from aphlict.server.auth import Credentials
from aphlict.server.context import PortContext, ServerContext
from aphlict.server.http_connection import Handler, HTTPConnection
from aphlict.server.limits import (
    ConnectionLimiter,
    NoLimit,
    PendingSlots,
    RejectionSlots,
    TokenBucket,
    max_clients,
    max_publishers,
)
from aphlict.server.poller import EXHAUSTED, READ, Poller
from aphlict.server.timer_wheel import TICK, HasDeadline
from aphlict.server.tls_socket import TLSSocket

log = logging.getLogger(__name__)

MAX_BATCH = 32  # connections accepted in a row
MAX_UNSENT = 64 * 1024  # bytes of a connection that the kernel accepts before earlier ones have been sent
PAUSE_SECONDS = 0.5  # without accepting, once file descriptors or memory have run out
MAX_PROXY_HEADER = max(V1_LIMIT, V2_HEAD + V2_LIMIT)  # bytes
_BROKEN = {
    errno.EBADF,
    errno.EINVAL,
    errno.ENOTSOCK,
    errno.EOPNOTSUPP,
}  # errors of the listening socket itself


class Listener:
    """Accepts on one socket, which is bound, listening and non-blocking.

    `on_accept` receives each connection and its address. If it raises OSError, the connection is closed.
    """

    def __init__(
        self,
        sock: socket.socket,
        poller: Poller,
        on_accept: Callable[[socket.socket, str], None],
        rate: TokenBucket,
        limit_counters: LimitCounters,
    ) -> None:
        self._socket = sock
        self._poller = poller
        self._on_accept = on_accept
        self._rate = rate
        self._limit_counters = limit_counters
        self._is_open = False
        self.is_broken = False  # the socket can no longer accept
        # Accepted sockets inherit both options (Linux). A frame must not wait for the acknowledgement of the previous
        # one (Nagle). Data that a slow client does not read must queue in the shared, bounded send buffer, instead of
        # megabytes for each client in the kernel.
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT)

    def start(self) -> None:
        """Start accepting."""
        self._is_open = True
        self._poller.register(self._socket.fileno(), self, READ)

    def close(self) -> None:
        """Close the listening socket."""
        if self._is_open:
            self._is_open = False
            self._poller.unregister(self._socket.fileno())
            self._socket.close()

    def on_events(self, _events: int, /) -> None:
        """Accept up to MAX_BATCH connections."""
        for _ in range(MAX_BATCH):
            if self._rate.is_empty:
                self._limit_counters.add("limits.connections.second", "new connections")
                self._pause(TICK)
                return
            try:
                sock, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._on_exhausted(error)
                    return
                if error.errno in _BROKEN:
                    self._on_broken(error)
                    return
                continue  # the client closed the connection before it was accepted (accept(2))
            self._rate.take()
            sock.setblocking(False)
            if not self._pass_on(sock, address[0]):
                return

    def _pass_on(self, sock: socket.socket, address: str) -> bool:
        """Return whether more connections can be accepted."""
        try:
            self._on_accept(sock, address)
        except OSError as error:
            sock.close()
            if error.errno in EXHAUSTED:
                self._on_exhausted(error)
                return False
            log.debug(log_events.NOT_ACCEPTED, address, error)
        return True

    def on_error(self) -> None:
        """Continue: the poller has logged the error."""

    def _on_exhausted(self, error: OSError) -> None:
        log.error(log_events.ACCEPT_FAILED, error.strerror)
        self._pause(PAUSE_SECONDS)

    def _on_broken(self, error: OSError) -> None:
        log.error(log_events.PORT_FAILED, error.strerror)
        self.is_broken = True
        self.close()

    def _pause(self, seconds: float) -> None:
        """Stop accepting for a while: a listening socket that is not accepted from stays readable, and would spin."""
        self._poller.modify(self._socket.fileno(), 0)
        IOLoop.current().call_later(seconds, self._resume)

    def _resume(self) -> None:
        if self._is_open:
            self._poller.modify(self._socket.fileno(), READ)


class PendingProxyConnection(HasDeadline):
    """A connection whose PROXY header has not been received completely.

    Reads the header and not a byte more: a TLS handshake may follow, which reads from the socket itself. `on_header`
    receives the socket, the proxy's address and the header. Until then, and for `limits.handshake` at most, the
    connection occupies one of `slots`.
    """

    __slots__ = ("_address", "_data", "_on_header", "_server", "_slots", "_socket")

    def __init__(
        self,
        sock: socket.socket,
        address: str,
        server: ServerContext,
        slots: PendingSlots,
        on_header: Callable[[socket.socket, str, ProxyHeader], None],
    ) -> None:
        super().__init__()
        self._socket: socket.socket | None = sock
        self._address = address
        self._server = server
        self._slots = slots
        self._on_header = on_header
        self._data = b""
        server.poller.register(sock.fileno(), self)
        server.timers.add(self, server.timers.now + server.limits.handshake)

    def on_events(self, _events: int, /) -> None:
        """Peek at the data, and read only what belongs to the header."""
        if self._socket is None:
            return
        try:
            ahead = self._socket.recv(MAX_PROXY_HEADER - len(self._data), socket.MSG_PEEK)
            if not ahead:
                self.abort()
                return
            header = proxy_protocol.parse_header(self._data + ahead)
            size = len(ahead) if header is None else header.size - len(self._data)
            self._data += self._socket.recv(size)
        except (BlockingIOError, InterruptedError):
            return
        except BadProxyHeader as error:
            self._reject(str(error))
        except OSError:
            self.abort()
        else:
            if header is not None:
                self._on_complete(self._socket, header)

    def _on_complete(self, sock: socket.socket, header: ProxyHeader) -> None:
        self._release(sock)
        try:
            self._on_header(sock, self._address, header)
        except OSError as error:
            level = logging.ERROR if error.errno in EXHAUSTED else logging.DEBUG
            log.log(level, log_events.NOT_ACCEPTED, self._address, error)
            sock.close()

    def _reject(self, reason: str) -> None:
        self._server.limit_counters.count("proxy.protocol")
        log.warning(log_events.PROXY_HEADER_REJECTED, self._address, reason)
        self.abort()

    def abort(self) -> None:
        """Close the connection. Not logged: health checks of some proxies connect and send nothing."""
        if self._socket is not None:
            sock = self._socket
            self._release(sock)
            sock.close()

    def _release(self, sock: socket.socket) -> None:
        self._server.poller.unregister(sock.fileno())
        self._server.timers.cancel(self)
        self._socket = None
        self._slots.release()

    def on_error(self) -> None:
        """Close the connection after an internal error."""
        self.abort()

    def on_deadline(self, _now: float, /) -> float | None:
        """Close the connection: the header is late."""
        if self._socket is not None:
            self._server.limit_counters.count("limits.handshake")
            self._reject("its PROXY protocol header was not complete in time")
        return None


class AdmissionLimits:
    """Limits that all ports of one type share."""

    def __init__(self, server_type: str, settings: Settings) -> None:
        self._server_type = server_type
        error = TooManyPublishers if server_type == "admin" else TooManyConnections
        self.connections = ConnectionLimiter(*self._max_connections(settings), error)
        self.rejections = RejectionSlots()
        self.pending = PendingSlots()
        self.rate = TokenBucket(self._max_rate(settings))

    def _max_connections(self, settings: Settings) -> tuple[int, int | None]:
        if self._server_type == "admin":
            return max_publishers(settings), None
        return max_clients(settings).connections, settings.limits.connections_address

    def _max_rate(self, settings: Settings) -> int | None:
        return None if self._server_type == "admin" else settings.limits.connections_second

    def reload(self, settings: Settings, addresses: Iterable[str]) -> None:
        """Apply other limits to new connections. `addresses` are those of all present connections."""
        self.connections.reload(*self._max_connections(settings), addresses)
        self.rate.rate = self._max_rate(settings)


class Acceptor:
    """Turns the accepted sockets of one port into connections, or rejects them."""

    def __init__(
        self,
        settings: ServerSettings,
        local_names: Collection[str],
        handler: Handler,
        limits: AdmissionLimits,
        server: ServerContext,
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._server = server
        is_trusted = settings.type == "admin"
        self._port = PortContext(server, limits.connections, is_trusted=is_trusted)
        self._health_check_port = PortContext(server, NoLimit(), is_trusted=is_trusted)
        self._rejection_port = PortContext(server, limits.rejections, is_trusted=False)
        self._tls: ssl.SSLContext | None = None
        self.certificate_expires: float | None = None  # Unix time
        self.set_settings(settings, local_names)

    def set_settings(self, settings: ServerSettings, local_names: Collection[str]) -> None:
        """Apply the settings of the port."""
        self._settings = settings
        host_names = HostNames(settings, local_names)
        for port in (self._port, self._health_check_port, self._rejection_port):
            port.access = AdminAccess(settings, host_names)
            port.origins = OriginAccess(settings, host_names)
        for port in (self._port, self._health_check_port):
            port.proxies = TrustedProxies(settings.proxy_trusted)

    def set_credentials(self, credentials: Credentials) -> bool:
        """Apply certificates and keys; the tokens of keys that are no longer included are revoked.

        Returns whether a client certificate that was accepted before may not be accepted now.
        """
        before, after = self._port.authorities, credentials.authorities
        self._tls = credentials.tls
        self.certificate_expires = credentials.expires
        for port in (self._port, self._health_check_port):
            port.keys = credentials.keys
            port.authorities = credentials.authorities
        return after is not None and (before is None or not after.include(before))

    def on_accept(self, sock: socket.socket, address: str) -> None:
        """Admit or reject a connection, after its PROXY header if the port requires one. Raises OSError."""
        if not self._settings.proxy_protocol:
            self._admit(sock, address)
            return
        limits = self._limits
        if not limits.pending.acquire(limits.connections.available):
            self._server.limit_counters.add("limits.connections", address)
            sock.close()
            return
        try:
            PendingProxyConnection(sock, address, self._server, limits.pending, self._on_proxy_header)
        except OSError:
            limits.pending.release()
            raise

    def _on_proxy_header(self, sock: socket.socket, peer: str, header: ProxyHeader) -> None:
        address = header.address or peer
        if header.is_local:
            self._open(sock, address, self._health_check_port, self._handler)
        else:
            self._admit(sock, address)

    def _admit(self, sock: socket.socket, address: str) -> None:
        """Admit or reject a connection. Raises OSError if the client is gone or the system's resources are spent."""
        counted = None if self._port.proxies.trusts(address) else address
        try:
            self._limits.connections.acquire(counted)
        except BadRequest as error:
            self._reject(sock, address, error)
            return
        try:
            self._open(sock, address, self._port, self._handler)
        except OSError:
            self._limits.connections.release(counted)
            raise

    def _reject(self, sock: socket.socket, address: str, error: BadRequest) -> None:
        if not self._limits.rejections.acquire():
            self._server.limit_counters.add(error.limit or "", address)
            sock.close()
            return
        try:
            self._open(sock, address, self._rejection_port, RejectAll(error))
        except OSError:
            self._limits.rejections.release(address)
            raise

    def _open(self, sock: socket.socket, address: str, port: PortContext, handler: Handler) -> None:
        """Make a connection of a socket. Raises OSError as `_admit`."""
        if self._tls is not None:
            sock = TLSSocket(sock, self._tls, self._server.tls_bridge)
        try:
            HTTPConnection(sock, address, port, handler)
        except OSError:
            sock.close()  # TLSSocket has taken the descriptor: closing the caller's object would not close it
            raise


class RejectAll:
    """Handler of a connection for which there is no room: rejects its request with an error."""

    max_body_size = 0

    def __init__(self, error: BadRequest) -> None:
        self._error = error

    def check_head(self, _connection: HTTPConnection, _request: Request, /) -> None:
        """Raise the error."""
        raise self._error

    def on_request(self, _connection: HTTPConnection, _request: Request, _body: bytes, /) -> None:
        """Raise the error."""
        raise self._error
