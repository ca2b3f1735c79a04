"""One epoll for all browsers, which the loop watches as if it were a single socket."""

import errno
import logging
import select
import time
from typing import Protocol

from tornado.ioloop import IOLoop

log = logging.getLogger(__name__)

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
# accept(2) and epoll_ctl(2), where ENOSPC is fs.epoll.max_user_watches: the system has no room for more connections.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC})
GONE = select.EPOLLHUP | select.EPOLLERR
HUNG_UP = select.EPOLLRDHUP  # the other side sends nothing more, and may yet read
BATCH = 4  # events handled in a row: a TLS handshake takes a millisecond, a page of tokens to prove takes six
SPELL = 0.004  # seconds after which other work of the loop has its turn


class EventHandler(Protocol):
    """What is told of events on a file descriptor."""

    def on_events(self, events: int, /) -> None:
        """`events` is epoll's mask."""

    def on_error(self) -> None:
        """`on_events` raised: give up in good order."""


class Poller:
    """Watches file descriptors at a fraction of what the loop itself asks for one.

    The loop's own registry keeps a callback, a context and a selector key for each descriptor; here it is one
    entry of a dictionary. An epoll descriptor is itself readable while it has events (epoll(7)).
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, EventHandler] = {}

    def start(self) -> None:
        """Begin to hand out events, in the running loop."""
        IOLoop.current().add_handler(self._epoll.fileno(), self._on_ready, IOLoop.READ)

    def close(self) -> None:
        """Stop; what is still registered is forgotten."""
        IOLoop.current().remove_handler(self._epoll.fileno())
        self._epoll.close()
        self._handlers.clear()

    def register(self, fd: int, handler: EventHandler, events: int = READ) -> None:
        """Tell the handler of events on a descriptor from now on. Raises OSError (EXHAUSTED), and nothing is kept."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def replace(self, fd: int, handler: EventHandler) -> None:
        """Report the events of a registered descriptor to another handler."""
        self._handlers[fd] = handler

    def modify(self, fd: int, events: int) -> None:
        """Watch for other events; 0 leaves errors only."""
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Forget a descriptor, before it is closed."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def handlers(self) -> list[EventHandler]:
        """All that is registered now."""
        return list(self._handlers.values())

    def _on_ready(self, _fd: int, _events: int) -> None:
        until = time.monotonic() + SPELL
        while self._handle(self._epoll.poll(0, BATCH)) == BATCH and time.monotonic() < until:
            pass

    def _handle(self, ready: list[tuple[int, int]]) -> int:
        handlers = self._handlers
        for fd, events in ready:
            handler = handlers.get(fd)
            if handler is None:  # an earlier event of this batch closed it
                continue
            try:
                handler.on_events(events)
            except Exception:  # one connection's bug must not touch another's
                log.exception("internal error on a connection; please report this")
                handlers.get(fd, handler).on_error()  # it may have been replaced
        return len(ready)
