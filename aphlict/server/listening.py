"""An event stream or a poll, from its subscription to its end."""

from aphlict.core.hub import Hub
from aphlict.core.subscriptions import Subscriber
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.timer_wheel import HasDeadline


class Listening(HasDeadline):
    """Part of the connection's Responder, and of the hub's Receiver. `term` ends it, if the port requires tokens."""

    __slots__ = ("_connection", "_hub", "subscriber", "term")

    subscriber: Subscriber | None  # None once it has ended

    def __init__(self, connection: HTTPConnection, hub: Hub) -> None:
        super().__init__()
        self._connection = connection
        self._hub = hub
        self.subscriber = None
        self.term: HasDeadline | None = None

    @property
    def holder(self) -> HTTPConnection:
        """Part of the hub's Receiver."""
        return self._connection

    def on_close(self, _reason: str, /) -> None:
        """Part of the connection's Responder."""
        self._leave()

    def _leave(self) -> None:
        """End the subscription, and release what waits for a deadline."""
        subscriber, self.subscriber = self.subscriber, None
        if subscriber is None:
            return
        self._hub.leave(subscriber)
        deadlines = self._connection.port.server.timers
        deadlines.cancel(self)
        if self.term is not None:
            deadlines.cancel(self.term)
