"""Server-Sent Events: a stream of messages over plain HTTP (HTML Standard, 9.2)."""

from collections.abc import Iterator, Mapping

from aphlict.core.hub import Hub, Recovery
from aphlict.core.message import Delivery
from aphlict.core.metrics import Cause
from aphlict.core.subscriptions import Subscriber
from aphlict.protocol.http import PRIVATE, response_head
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.subscribe_request import HTTPSubscriber, SubscribeRequest

COMMENT_INTERVAL = 25.0  # seconds, or `ping.interval` if that is shorter
RECONNECT_MS = 2000  # delay of an EventSource before it reconnects

FIELDS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    **PRIVATE,
    "Cache-Control": "no-store, no-transform",  # a proxy that compresses would delay events
    "X-Accel-Buffering": "no",  # nginx
    "Connection": "close",
}
FIRST_BLOCK = b": aphlict\nretry: %d\n\n" % RECONNECT_MS
GAP = b"event: gap\ndata: {}\n\n"
MIN_SHARED = 4096  # bytes of an event from which on all streams share one copy


class EventEncoder:
    """Encodes deliveries, once each: a fan-out passes the same delivery to one stream after the other.

    An event has two parts: the line with its `id`, and its data. Most streams have the `id` in common.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._delivery: Delivery | None = None
        self._event = b"", b""

    def encode(self, delivery: Delivery) -> tuple[bytes, bytes]:
        """Return the parts of the event of a delivery."""
        if delivery is not self._delivery:
            token = self._hub.shared_token(self._hub.offset_of(delivery))
            self._event = b"id: %b" % token.encode(), encode_data(delivery.json)
            self._delivery = delivery
        return self._event


def encode_data(text: bytes) -> bytes:
    """Return the lines of an event after its `id`. JSON may contain line breaks between its values."""
    return b"\n%b\n" % b"".join(b"data: %b\n" % line for line in text.splitlines())


class EventStream(HTTPSubscriber):
    """One stream. The `id` of an event is the resume token of a client that has received it."""

    __slots__ = ("_encoder", "_had", "_is_behind", "_replay")

    transport = "sse"

    def __init__(
        self, connection: HTTPConnection, hub: Hub, fields: dict[str, str], encoder: EventEncoder
    ) -> None:
        super().__init__(connection, hub, fields)
        self._encoder = encoder
        self._replay: Iterator[bytes] = iter(())
        self._is_behind = False  # the replay has not been handed to the connection yet
        self._had: Mapping[str, int] = {}  # the version of the client when it resumed

    def _start(self, subscriber: Subscriber, request: SubscribeRequest, now: float) -> None:
        """Send the head and a comment immediately, as some proxies wait for the first bytes; then the replay."""
        connection = self._connection
        limits = connection.port.server.limits
        connection.stream(self)
        connection.port.server.timers.add(self, now + self._interval)
        connection.send(response_head(200, {**FIELDS, **self._fields}) + FIRST_BLOCK)
        connection.set_ack_timeout(limits.ping_timeout)
        if not request.after:
            connection.send(self._marker(subscriber, now))
            return
        self._is_behind = True
        resumption = self._hub.resume(subscriber, request.after, now)
        self._had = resumption.version
        marker = self._marker(subscriber, now)
        cost = self._hub.replay(subscriber, resumption, lambda recovery: self._on_replay(recovery, marker))
        connection.charge(cost)

    def _marker(self, subscriber: Subscriber, now: float) -> bytes:
        """Return an event without data, whose `id` is where a client continues that is disconnected now."""
        token = self._hub.resume_token_at(subscriber, self._hub.offset(now))
        return b"id: %b\n\n" % token.encode()

    def _on_replay(self, recovery: Recovery, marker: bytes) -> None:
        """Send `gap` if messages are missing, then the replay, then the marker of its end."""
        replay, self._replay = self._replay, iter(())
        if not recovery.recovered:
            self._connection.send(GAP)
        self._connection.send_all(replay)
        self._connection.send(marker)
        self._is_behind = False

    def deliver(self, delivery: Delivery, /) -> None:
        """Part of the hub's Receiver."""
        id_line, data = self._encode(delivery)
        if len(data) < MIN_SHARED:
            self._connection.send(id_line + data)
        else:
            self._connection.send(id_line)
            self._connection.send(data)

    def _encode(self, delivery: Delivery, had: Mapping[str, int] | None = None) -> tuple[bytes, bytes]:
        """Encode an event; on its own for a client that had messages before this node, or other ones."""
        event = self._encoder.encode(delivery)
        if self.subscriber is None or (not had and self not in self._hub.early):
            return event
        token = self._hub.resume_token_at(self.subscriber, self._hub.offset_of(delivery), had)
        return b"id: %b" % token.encode(), event[1]

    def deliver_all(self, deliveries: Iterator[Delivery], /) -> None:
        """Part of the hub's Receiver. The hub then calls `_on_replay`, which sends `gap` first if it is needed."""
        self._replay = self._encode_all(deliveries)

    def _encode_all(self, deliveries: Iterator[Delivery]) -> Iterator[bytes]:
        for delivery in deliveries:
            yield b"".join(self._encode(delivery, self._had))

    def on_deadline(self, now: float, /) -> float | None:
        """Send a comment, with a marker if the client is up to date, so that proxies keep the stream open."""
        if self.subscriber is None:
            return None
        is_behind = self._is_behind or self.subscriber.instance.queue
        self._connection.send(b":\n\n" if is_behind else b":\n" + self._marker(self.subscriber, now))
        return None if self.subscriber is None else now + self._interval

    @property
    def _interval(self) -> float:
        return min(COMMENT_INTERVAL, self._connection.port.server.limits.ping_interval)

    def final_bytes(self, _cause: Cause, /) -> bytes:
        """Part of the connection's Responder: nothing, as the client knows its resume token."""
        return b""
