"""Long polling: messages as the answer to a request that waits for them."""

import asyncio
from collections.abc import Callable, Iterator

from msgspec.json import encode

from aphlict.core.hub import Hub, Offset, Recovery
from aphlict.core.message import Delivery
from aphlict.core.subscriptions import Subscriber
from aphlict.protocol.http import JSON, PRIVATE, response
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.listen_request import ListenRequest
from aphlict.server.listening import Listening
from aphlict.server.timer_wheel import TICK

HEAD = {**JSON, **PRIVATE, "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
MAX_MESSAGES = 256  # in one answer
MAX_BYTES = 256 * 1024  # in one answer, but for its last message


class Poll(Listening):
    """One request that waits for messages: what the hub sends to, and what its connection streams.

    `keep`: the connection may bear another request; `fields`: what the answer's head says beside.
    """

    __slots__ = (
        "_clock",
        "_early",
        "_fields",
        "_has_seen",
        "_is_answering",
        "_is_full",
        "_keep",
        "_ready",
        "_recovered",
        "_size",
        "_texts",
        "_until",
    )

    def __init__(
        self,
        connection: HTTPConnection,
        hub: Hub,
        clock: Callable[[], float],
        fields: dict[str, str],
        *,
        keep: bool,
    ) -> None:
        super().__init__(connection, hub)
        self._clock = clock
        self._fields = fields
        self._keep = keep
        self._texts: list[bytes] = []
        self._size = 0
        self._recovered = True
        self._has_seen: Callable[[str], bool] = _is_new
        self._early: tuple[bytes, ...] = ()
        self._until = Offset(0, 0.0)  # how far the messages in _texts go
        self._is_full = False
        self._ready = False  # what came before this request is in _texts
        self._is_answering = False

    def start(self, subscriber: Subscriber, wish: ListenRequest, now: float, /) -> None:
        """Begin to wait: for what comes later than `after`, or where that is empty for what comes from now on."""
        self.subscriber = subscriber
        self._connection.stream(self)
        begin = self._until = self._hub.offset(now)
        if wish.after:
            resumption = self._hub.resume(subscriber, wish.after, now)
            self._has_seen, self._early = resumption.has_seen, resumption.early
            cost = self._hub.replay(
                subscriber, resumption, lambda recovery: self._on_replayed(recovery, begin)
            )
            self._connection.charge(cost)
        else:
            self._ready = True
        if self._ready and (self._is_answering or not wish.wait):
            self._answer()
        else:
            self._connection.port.server.timers.add(self, now + wish.wait)

    # What the hub has to say

    def _on_replayed(self, recovery: Recovery, begin: Offset) -> None:
        self._ready = True
        self._recovered = recovery.recovered
        if not self._is_full:
            self._until = begin
        if self._texts or not self._recovered:
            self._answer_soon()

    def deliver(self, delivery: Delivery, /) -> None:
        """Part of the hub's Receiver: a message came."""
        self._take(delivery)
        if self._texts:
            self._answer_soon()

    def deliver_all(self, deliveries: Iterator[Delivery], /) -> None:
        """Part of the hub's Receiver: what came before; what is beyond the bounds is left to the next request."""
        for delivery in deliveries:
            self._take(delivery)
            if self._is_full:
                return

    def _take(self, delivery: Delivery) -> None:
        """Keep a message for the answer, unless that is full: then it is left to the next request."""
        if self._is_full:
            return
        self._until = self._hub.offset_of(delivery)
        if not self._has_seen(delivery.unique_id):
            text = delivery.json
            self._texts.append(text)
            self._size += len(text)
            self._is_full = len(self._texts) >= MAX_MESSAGES or self._size >= MAX_BYTES

    # The answer

    def _answer_soon(self) -> None:
        """Answer once all that comes in one go has come."""
        if not self._is_answering:
            self._is_answering = True
            asyncio.get_running_loop().call_soon(self._answer)

    def _answer(self) -> None:
        if self.subscriber is not None:
            body = self._end(self.subscriber)
            self._connection.respond(
                response(200, {**HEAD, **self._fields}, body, keep_alive=self._keep), keep_alive=self._keep
            )

    def _end(self, subscriber: Subscriber) -> bytes:
        """Stop to listen, and make the answer."""
        last = (
            self._hub.resume_token_at(subscriber, self._moment(subscriber), self._early)
            if self._ready
            else None
        )
        self._leave()
        return b'{"messages":[%b],"last":%b,"recovered":%b}' % (
            b",".join(self._texts),
            encode(last),
            encode(self._recovered),
        )

    def _moment(self, subscriber: Subscriber) -> Offset:
        """How far the reader is with this answer."""
        if self._is_full or subscriber.instance.queue:
            return self._until
        return self._hub.offset(self._clock())  # what came since was for others

    def on_deadline(self, now: float, /) -> float | None:
        """Answer that nothing came."""
        if self.subscriber is not None and not self._ready:
            return now + TICK
        self._answer()
        return None

    def final_bytes(self) -> bytes:
        """Part of the connection's Responder: the server stops; another can go on from this answer."""
        if self.subscriber is None:
            return b""
        return response(200, {**HEAD, **self._fields}, self._end(self.subscriber), keep_alive=False)


def _is_new(_unique_id: str) -> bool:
    """A reader who was nowhere before has seen nothing."""
    return False
