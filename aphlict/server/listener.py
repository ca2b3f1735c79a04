"""A listening socket: accepts what comes, as long as there are file descriptors."""

import errno
import logging
import socket
from collections.abc import Callable

from tornado.ioloop import IOLoop

from aphlict.core.stats import LimitCounters
from aphlict.server.limits import TokenBucket
from aphlict.server.poller import EXHAUSTED, READ, Poller
from aphlict.server.timer_wheel import TICK

log = logging.getLogger(__name__)

BATCH = 32  # connections accepted in a row
UNSENT = 64 * 1024  # bytes that the kernel takes for a connection before it has sent what came before
PAUSE = 0.5  # seconds without accepting once file descriptors or memory have run out
_BROKEN = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP}  # of the listening socket itself


class Listener:
    """Accepts on one socket, which is bound, listening and non-blocking, and hands each connection on."""

    def __init__(
        self,
        sock: socket.socket,
        poller: Poller,
        on_accept: Callable[[socket.socket, str], None],
        pace: TokenBucket,
        hits: LimitCounters,
    ) -> None:
        self._socket = sock
        self._poller = poller
        self._on_accept = on_accept
        self._pace = pace
        self._hits = hits
        self._open = False
        self.is_broken = False  # it will never accept again
        # Accepted sockets inherit both (Linux): a frame must not wait for the answer to the one before, and what
        # a slow browser does not take waits here, where all share it, and not with the kernel, up to megabytes each.
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)

    def start(self) -> None:
        """Begin to accept."""
        self._open = True
        self._poller.register(self._socket.fileno(), self, READ)

    def close(self) -> None:
        """Accept no more, and close the socket."""
        if self._open:
            self._open = False
            self._poller.unregister(self._socket.fileno())
            self._socket.close()

    def on_events(self, _events: int, /) -> None:
        """Accept what waits."""
        for _ in range(BATCH):
            if self._pace.is_spent:
                self._hits.add("limits.connections.second", "those who connect")
                self._pause(TICK)
                return
            try:
                sock, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._wait_for_room(error)
                    return
                if error.errno in _BROKEN:
                    self._give_up(error)
                    return
                continue  # it was gone before it was accepted (accept(2))
            self._pace.take()
            sock.setblocking(False)
            if not self._hand_on(sock, address[0]):
                return

    def _hand_on(self, sock: socket.socket, address: str) -> bool:
        """Returns whether more can be accepted."""
        try:
            sock.getpeername()  # raises where it is gone already, which TLS would stumble over
            self._on_accept(sock, address)
        except OSError as error:
            sock.close()
            if error.errno in EXHAUSTED:
                self._wait_for_room(error)
                return False
            log.debug("%s was gone at once: %s", address, error)
        return True

    def _wait_for_room(self, error: OSError) -> None:
        log.error(
            "cannot accept connections: %s; see 'file descriptors' in docs/operations.md", error.strerror
        )
        self._pause(PAUSE)

    def on_error(self) -> None:
        """Go on: the error has been logged."""

    def _give_up(self, error: OSError) -> None:
        log.error("a port accepts no more connections: %s; restart the server", error.strerror)
        self.is_broken = True
        self.close()

    def _pause(self, seconds: float) -> None:
        """Stop accepting for a moment: a listener that does not accept stays ready, and would spin."""
        self._poller.modify(self._socket.fileno(), 0)
        IOLoop.current().call_later(seconds, self._resume)

    def _resume(self) -> None:
        if self._open:
            self._poller.modify(self._socket.fileno(), READ)
