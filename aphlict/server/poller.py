"""One epoll instance for all connections, which the event loop watches like a single socket."""

import errno
import logging
import select
import time
from collections.abc import Iterator
from typing import Protocol

from tornado.ioloop import IOLoop

from aphlict import log_events

log = logging.getLogger(__name__)

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
# Errors of accept(2) and epoll_ctl(2) without room for more connections; ENOSPC: fs.epoll.max_user_watches.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC})
GONE = select.EPOLLHUP | select.EPOLLERR
HUNG_UP = select.EPOLLRDHUP  # the peer has closed its sending side; it may still receive
MAX_BATCH = 4  # events handled in a row: a TLS handshake takes a millisecond, a read with many tokens six
MAX_TURN_SECONDS = 0.004  # before other work of the event loop has its turn


class EventHandler(Protocol):
    """Receives the events of a file descriptor."""

    def on_events(self, events: int, /) -> None:
        """Handle events; `events` is epoll's mask."""

    def on_error(self) -> None:
        """`on_events` has raised: release all resources."""


class Poller:
    """Watches file descriptors at a fraction of the memory that the event loop takes for one.

    The loop's own registry keeps a callback, a context and a selector key for each descriptor; here it is one entry
    of a dictionary. An epoll descriptor is itself readable while it has events (epoll(7)).
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, EventHandler] = {}
        self._highest = 0  # descriptor so far

    def __len__(self) -> int:
        return len(self._handlers)

    def start(self) -> None:
        """Start to report events, in the running loop."""
        IOLoop.current().add_handler(self._epoll.fileno(), self._on_ready, IOLoop.READ)

    def close(self) -> None:
        """Stop. Handlers that are still registered are not called any more."""
        IOLoop.current().remove_handler(self._epoll.fileno())
        self._epoll.close()
        self._handlers.clear()

    def register(self, fd: int, handler: EventHandler, events: int = READ) -> None:
        """Report the events of a descriptor to a handler. Raises OSError (EXHAUSTED), and registers nothing."""
        self._epoll.register(fd, events)
        self._handlers[fd] = handler
        if fd > self._highest:
            self._highest = fd

    def replace(self, fd: int, handler: EventHandler) -> None:
        """Report the events of a registered descriptor to another handler."""
        self._handlers[fd] = handler

    def modify(self, fd: int, events: int) -> None:
        """Watch for other events; 0: errors only."""
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Stop watching a descriptor. Call it before the descriptor is closed."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def handlers(self) -> list[EventHandler]:
        """Return all registered handlers."""
        return list(self._handlers.values())

    def walk(self) -> Iterator[EventHandler | None]:
        """Iterate over the handlers while others come and go: without a copy, which takes milliseconds for a hundred
        thousand. None for a descriptor that is not registered."""
        return map(self._handlers.get, range(self._highest + 1))

    def _on_ready(self, _fd: int, _events: int) -> None:
        until = time.monotonic() + MAX_TURN_SECONDS
        while self._handle(self._epoll.poll(0, MAX_BATCH)) == MAX_BATCH and time.monotonic() < until:
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
                log.exception(log_events.CONNECTION_FAILED)
                handlers.get(fd, handler).on_error()  # it may have been replaced
        return len(ready)
