"""A connection through a balancer, until it has said for whom it is."""

import logging
import socket
from collections.abc import Callable

from aphlict.errors import BadProxyHeader
from aphlict.protocol import proxy_protocol as proxy
from aphlict.protocol.proxy_protocol import V1_LIMIT, V2_HEAD, V2_LIMIT, ProxyHeader
from aphlict.server.context import Surroundings
from aphlict.server.limits import PendingSlots
from aphlict.server.poller import EXHAUSTED
from aphlict.server.timer_wheel import HasDeadline

log = logging.getLogger(__name__)

LONGEST = max(V1_LIMIT, V2_HEAD + V2_LIMIT)
Accept = Callable[[socket.socket, str], None]


class PendingProxyConnection(HasDeadline):
    """Reads the PROXY protocol header of a socket, not a byte more, and hands the socket on.

    What follows may be a TLS handshake, which reads from the socket by itself. `accept` gets the browser's address,
    `accept_check` the balancer's where that speaks for itself. Until then it is counted in `porch`, for
    `limits.handshake` at most.
    """

    __slots__ = ("_accept", "_accept_check", "_address", "_porch", "_read", "_socket", "_surroundings")

    def __init__(
        self,
        sock: socket.socket,
        address: str,
        surroundings: Surroundings,
        porch: PendingSlots,
        accept: Accept,
        accept_check: Accept,
    ) -> None:
        super().__init__()
        self._socket: socket.socket | None = sock
        self._address = address
        self._surroundings = surroundings
        self._porch = porch
        self._accept = accept
        self._accept_check = accept_check
        self._read = b""
        surroundings.poller.register(sock.fileno(), self)
        deadlines = surroundings.deadlines
        deadlines.add(self, deadlines.now + surroundings.limits.handshake)

    def on_events(self, _events: int, /) -> None:
        """Look at what has come, and take from the socket what belongs to the header."""
        if self._socket is None:
            return
        try:
            ahead = self._socket.recv(LONGEST - len(self._read), socket.MSG_PEEK)
            if not ahead:
                self.abort()
                return
            found = proxy.read(self._read + ahead)
            self._read += self._socket.recv(len(ahead) if found is None else found.size - len(self._read))
        except (BlockingIOError, InterruptedError):
            return
        except BadProxyHeader as error:
            self._refuse(str(error))
        except OSError:
            self.abort()
        else:
            if found is not None:
                self._hand_on(self._socket, found)

    def _hand_on(self, sock: socket.socket, found: ProxyHeader) -> None:
        self._leave(sock)
        accept = self._accept_check if found.is_local else self._accept
        try:
            accept(sock, found.address or self._address)
        except OSError as error:
            level = logging.ERROR if error.errno in EXHAUSTED else logging.DEBUG
            log.log(level, "closed the connection from %s at once: %s", self._address, error)
            sock.close()

    def _refuse(self, why: str) -> None:
        self._surroundings.hits.count("proxy.protocol")
        log.warning("dropped a connection from %s: %s, which proxy.protocol demands", self._address, why)
        self.abort()

    def abort(self) -> None:
        """End at once. Some balancers look whether a port is open, and say nothing: that is no news."""
        if self._socket is not None:
            sock = self._socket
            self._leave(sock)
            sock.close()

    def _leave(self, sock: socket.socket) -> None:
        self._surroundings.poller.unregister(sock.fileno())
        self._surroundings.deadlines.cancel(self)
        self._socket = None
        self._porch.leave(self._address)

    def on_error(self) -> None:
        """End after an error of our own."""
        self.abort()

    def on_deadline(self, _now: float, /) -> float | None:
        """Drop who has not said for whom it is."""
        if self._socket is not None:
            self._surroundings.hits.count("limits.handshake")
            self._refuse("it did not send the whole header in time")
        return None
