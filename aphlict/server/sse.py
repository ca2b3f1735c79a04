"""Server-Sent Events: a stream of messages over plain HTTP."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from aphlict.core.hub import Hub, Recovery
from aphlict.core.message import DIGEST_SIZE, Delivery, digest
from aphlict.core.resume import MAX_RECENT, encode_digests
from aphlict.core.subscriptions import Subscriber
from aphlict.protocol.http import PRIVATE, response_head
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.listen_request import ListenRequest
from aphlict.server.listening import Listening

COMMENT_INTERVAL = 25.0  # seconds, or `ping.interval` where that is shorter
RETRY = 2000  # milliseconds after which a browser comes back by itself

HEAD = {
    "Content-Type": "text/event-stream; charset=utf-8",
    **PRIVATE,
    "Cache-Control": "no-store, no-transform",  # a proxy that compresses would hold events back
    "X-Accel-Buffering": "no",  # nginx
    "Connection": "close",
}
HELLO = b": aphlict\nretry: %d\n\n" % RETRY
GAP = b"event: gap\ndata: {}\n\n"
NAMED = MAX_RECENT * DIGEST_SIZE  # bytes of the digests in a position
LONG = 4096  # bytes of an event from which all streams share one copy


class Event(NamedTuple):
    """What all streams that get a message send alike: the begin of its position, and the lines behind that."""

    id_begin: bytes
    body: bytes
    digest: bytes  # of its uniqueID


class Encoder:
    """Makes events of deliveries; a fan-out brings the same delivery many times in a row."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._delivery: Delivery | None = None
        self._event = Event(b"", b"", b"")

    def event(self, delivery: Delivery) -> Event:
        """Make the event of a message."""
        if delivery is not self._delivery:
            offset = self._hub.offset_of(delivery)
            id_begin = b"id: %b" % self._hub.resume_token_prefix(offset).encode()
            self._event = Event(id_begin, encode(delivery.json), digest(delivery.unique_id))
            self._delivery = delivery
        return self._event


def encode(text: bytes) -> bytes:
    """Make the lines of an event behind its id: JSON may come with line breaks between its values."""
    return b"\n%b\n" % b"".join(b"data: %b\n" % line for line in text.splitlines())


class EventStream(Listening):
    """One browser that listens to events: what the hub sends to, and what its connection streams."""

    __slots__ = (
        "_backlog",
        "_early",
        "_encoder",
        "_fields",
        "_has_seen",
        "_is_behind",
        "_recent",
        "_resumed",
    )

    def __init__(
        self, connection: HTTPConnection, hub: Hub, encoder: Encoder, fields: dict[str, str]
    ) -> None:
        super().__init__(connection, hub)
        self._encoder = encoder
        self._fields = fields
        self._backlog: Iterator[bytes] = iter(())
        self._is_behind = False
        self._has_seen: Callable[[str], bool] | None = None
        self._early = b""  # what the browser had before this node did, encoded
        self._resumed = b""  # digests of what the browser had when it came
        self._recent = b""  # digests of the last messages, newest first

    def start(self, subscriber: Subscriber, wish: ListenRequest, now: float, /) -> None:
        """Begin: with a head and a comment at once, so that no proxy waits for more, then with what is missing."""
        self.subscriber = subscriber
        self._connection.stream(self)
        self._connection.port.server.timers.add(self, now + self._interval)
        self._connection.send(response_head(200, {**HEAD, **self._fields}) + HELLO)
        self._connection.set_ack_timeout(self._connection.port.server.limits.ping_timeout)
        if wish.after:
            self._is_behind = True
            resumption = self._hub.resume(subscriber, wish.after, now)
            self._has_seen = resumption.has_seen
            self._early = encode_digests(b"".join(resumption.early))
            self._resumed = b"".join(resumption.recent)
            mark = self._mark(subscriber, now)
            cost = self._hub.replay(subscriber, resumption, lambda recovery: self._catch_up(recovery, mark))
            self._connection.charge(cost)
        else:
            self._connection.send(self._mark(subscriber, now))

    def _mark(self, subscriber: Subscriber, now: float) -> bytes:
        """Say where a browser goes on that is cut off now."""
        moment = self._hub.offset(now)
        self._recent = b"".join(self._hub.recent(subscriber, moment))
        begin = self._hub.resume_token_prefix(moment).encode()
        return b"id: %b%b.%b\n\n" % (begin, encode_digests(self._recent), self._early)

    def _catch_up(self, recovery: Recovery, mark: bytes) -> None:
        """Send the gap, if there is one, before what was found after it, and last where that ends."""
        backlog, self._backlog = self._backlog, iter(())
        if not recovery.recovered:
            self._connection.send(GAP)
        self._connection.send_all(backlog)
        self._connection.send(mark)
        self._is_behind = False

    def deliver(self, delivery: Delivery, /) -> None:
        """Part of the hub's Receiver."""
        if self._has_seen is not None and self._has_seen(delivery.unique_id):
            return
        event = self._encoder.event(delivery)
        self._recent = recent = (event.digest + self._recent)[:NAMED]
        if len(event.body) < LONG:
            self._connection.send(
                b"%b%b.%b%b" % (event.id_begin, encode_digests(recent), self._early, event.body)
            )
        else:
            self._connection.send(b"%b%b.%b" % (event.id_begin, encode_digests(recent), self._early))
            self._connection.send(event.body)

    def deliver_all(self, deliveries: Iterator[Delivery], /) -> None:
        """Part of the hub's Receiver: it has a replay ready, and says next how complete that is."""
        self._backlog = self._encode_all(deliveries)

    def _encode_all(self, deliveries: Iterator[Delivery]) -> Iterator[bytes]:
        """The events of a replay: what its browser had before is what it said when it came."""
        recent = self._resumed
        for event in map(self._encoder.event, deliveries):
            recent = (event.digest + recent)[:NAMED]
            yield b"%b%b.%b%b" % (event.id_begin, encode_digests(recent), self._early, event.body)

    def on_deadline(self, now: float, /) -> float | None:
        """Show that the stream is alive."""
        if self.subscriber is None:
            return None
        is_behind = self._is_behind or self.subscriber.instance.queue
        self._connection.send(b":\n\n" if is_behind else b":\n" + self._mark(self.subscriber, now))
        return None if self.subscriber is None else now + self._interval

    @property
    def _interval(self) -> float:
        return min(COMMENT_INTERVAL, self._connection.port.server.limits.ping_interval)

    def final_bytes(self) -> bytes:
        """Part of the connection's Responder: the end is all there is to say."""
        return b""
