"""Long polling: the response to a request is sent when there are messages, or after `wait` seconds."""

import asyncio
import time
from collections.abc import Callable, Iterator

from msgspec.json import encode

from aphlict.core.hub import Hub, Offset, Recovery
from aphlict.core.message import Delivery
from aphlict.core.metrics import Cause
from aphlict.core.subscriptions import Subscriber
from aphlict.protocol.http import JSON, PRIVATE, response
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.subscribe_request import HTTPSubscriber, SubscribeRequest
from aphlict.server.timer_wheel import TICK

FIELDS = {**JSON, **PRIVATE, "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
MAX_MESSAGES = 256  # in one response
MAX_BYTES = 256 * 1024  # in one response, not counting its last message


class LongPoll(HTTPSubscriber):
    """One poll. `keep_alive`: the connection stays open for the next one."""

    __slots__ = (
        "_clock",
        "_gaps",
        "_had",
        "_is_full",
        "_is_ready",
        "_is_responding",
        "_keep_alive",
        "_messages",
        "_recovered",
        "_size",
        "_until",
    )

    transport = "poll"

    def __init__(
        self,
        connection: HTTPConnection,
        hub: Hub,
        fields: dict[str, str],
        clock: Callable[[], float],
        *,
        keep_alive: bool,
    ) -> None:
        super().__init__(connection, hub, fields)
        self._clock = clock
        self._keep_alive = keep_alive
        self._messages: list[bytes] = []  # JSON
        self._size = 0  # bytes of _messages
        self._recovered = True
        self._had: dict[str, int] = {}  # the version of the client when it resumed
        self._until = Offset(0, 0.0)  # where the client is after _messages
        self._gaps = hub.gaps  # before this poll
        self._is_full = False
        self._is_ready = False  # the replay is in _messages
        self._is_responding = False  # a call of _respond is scheduled

    def _start(self, subscriber: Subscriber, request: SubscribeRequest, now: float) -> None:
        """Collect what the client missed, and wait. Without `after`, only messages from now on count."""
        self._connection.stream(self)
        start = self._until = self._hub.offset(now)
        if request.after:
            resumption = self._hub.resume(subscriber, request.after, now)
            self._had = resumption.version
            cost = self._hub.replay(subscriber, resumption, lambda recovery: self._on_replay(recovery, start))
            self._connection.charge(cost)
        else:
            self._is_ready = True
        if self._is_ready and (self._is_responding or not request.wait):
            self._respond()
        else:
            self._connection.port.server.timers.add(self, now + request.wait)

    def _on_replay(self, recovery: Recovery, start: Offset) -> None:
        self._is_ready = True
        self._recovered = recovery.recovered
        if not self._is_full:
            self._until = start
        if self._messages or not self._recovered:
            self._respond_soon()

    def deliver(self, delivery: Delivery, /) -> None:
        """Part of the hub's Receiver."""
        self._add(delivery)
        self._respond_soon()

    def deliver_all(self, deliveries: Iterator[Delivery], /) -> None:
        """Part of the hub's Receiver. What does not fit is left to the next request."""
        for delivery in deliveries:
            self._add(delivery)
            if self._is_full:
                return

    def _add(self, delivery: Delivery) -> None:
        if self._is_full:
            return
        self._until = self._hub.offset_of(delivery)
        json = delivery.json
        self._messages.append(json)
        self._size += len(json)
        self._is_full = len(self._messages) >= MAX_MESSAGES or self._size >= MAX_BYTES

    def _respond_soon(self) -> None:
        """Respond in the next turn of the loop, with all messages of this one."""
        if not self._is_responding:
            self._is_responding = True
            asyncio.get_running_loop().call_soon(self._respond)

    def _respond(self) -> None:
        if self.subscriber is not None:
            data = self._end(self.subscriber, keep_alive=self._keep_alive)
            self._connection.respond(data, keep_alive=self._keep_alive)

    def _end(self, subscriber: Subscriber, *, keep_alive: bool, cause: Cause = "client") -> bytes:
        """Unsubscribe, and return the response. `last` is null if the replay has not come yet: the client then has
        to repeat its `after`."""
        last = None
        if self._is_ready:
            last = self._token(subscriber)
        self._connection.port.server.ended.add_answered_poll(
            subscriber, self._client, cause, self._answered_until(subscriber), time.monotonic()
        )
        self._leave(cause)
        body = b'{"messages":[%b],"last":%b,"recovered":%b}' % (
            b",".join(self._messages),
            encode(last),
            encode(self._recovered),
        )
        return response(200, {**FIELDS, **self._fields}, body, keep_alive=keep_alive)

    def _answered_until(self, subscriber: Subscriber) -> int:
        """Return the sequence up to which the response has all messages."""
        if not self._is_ready:
            return 0
        has_more = self._is_full or subscriber.instance.queue
        return self._until.sequence if has_more else self._hub.history.sequence

    def _token(self, subscriber: Subscriber) -> str:
        """Return where the client is after this response."""
        if self._is_full or subscriber.instance.queue:
            return self._hub.resume_token_at(subscriber, self._until, self._had)
        if self._hub.gaps > self._gaps:  # messages since `_until` were lost
            return self._hub.resume_token_at(subscriber, self._until)
        # Messages since `_until` were for other channels.
        return self._hub.resume_token_at(subscriber, self._hub.offset(self._clock()))

    def on_deadline(self, now: float, /) -> float | None:
        """Respond without messages."""
        if self.subscriber is not None and not self._is_ready:
            return now + TICK
        self._respond()
        return None

    def final_bytes(self, cause: Cause, /) -> bytes:
        """Part of the connection's Responder: a response from which the client can continue elsewhere."""
        return b"" if self.subscriber is None else self._end(self.subscriber, keep_alive=False, cause=cause)
