"""An event stream or a poll, from its subscription to its end."""

from aphlict.core.hub import Hub
from aphlict.core.subscriptions import Subscriber
from aphlict.server.streaming import BrowserConnection
from aphlict.server.timer_wheel import HasDeadline


class Listening(HasDeadline):
    """Part of the connection's Stream, and of the hub's Receiver. `term` ends it, on a port that asks for tokens."""

    __slots__ = ("_connection", "_hub", "subscriber", "term")

    subscriber: Subscriber | None  # None once it has ended

    def __init__(self, connection: BrowserConnection, hub: Hub) -> None:
        super().__init__()
        self._connection = connection
        self._hub = hub
        self.subscriber = None
        self.term: HasDeadline | None = None

    @property
    def holder(self) -> BrowserConnection:
        """Part of the hub's Receiver."""
        return self._connection

    def on_close(self, _reason: str, /) -> None:
        """Part of the connection's Stream."""
        self._leave()

    def _leave(self) -> None:
        """End the subscription, and release what waits for a deadline."""
        subscriber, self.subscriber = self.subscriber, None
        if subscriber is None:
            return
        self._hub.leave(subscriber)
        deadlines = self._connection.context.deadlines
        deadlines.cancel(self)
        if self.term is not None:
            deadlines.cancel(self.term)
