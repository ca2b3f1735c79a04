"""The queue of one peer: ordered, and bounded by count, bytes and age."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from aphlict.core.message import Message

TOUCHED_COST = 64  # bytes of Python's overhead for a fingerprint
MAX_SKIPPED = 1024  # messages of other instances that one batch skips


class HasFingerprint(Protocol):
    """A peer. Its fingerprint is known after its first response."""

    @property
    def fingerprint(self) -> str | None: ...


@dataclass(frozen=True)
class PeerOptions:
    """Bounds of the queue, of a batch, and of the time spent on a peer."""

    max_count: int = 4096
    max_bytes: int = 16 * 1024 * 1024
    max_age: float = 60.0  # seconds, as in the history
    max_batch_count: int = 256
    max_batch_bytes: int = 512 * 1024  # well below the 1 MiB that an admin server accepts
    connect_timeout: float = 3.0  # seconds for name and connection, and again for TLS
    response_timeout: float = 5.0  # seconds
    min_backoff: float = 0.2  # seconds
    max_backoff: float = 10.0  # seconds
    probe_interval: float = 15.0  # seconds without a response until the peer is asked for its status


@dataclass(frozen=True)
class Envelope:
    """A message that is forwarded to several peers."""

    message: Message
    sender: str  # fingerprint
    receivers: Sequence[HasFingerprint]
    posted: float  # monotonic seconds
    touched: tuple[str, ...] = ()  # fingerprints of the nodes that had it before
    is_repair: bool = False  # the receiver lacks it, and nobody else may send it

    @property
    def size(self) -> int:
        """Its approximate size in bytes, in a POST and in memory."""
        return self.message.wire_size + sum(map(len, self.touched)) + TOUCHED_COST * len(self.touched)

    def body(self, receiver: str | None, *, with_origin: bool) -> bytes:
        """The JSON for one of the receivers; `with_origin` unless that is a Node.js server.

        `touched` names all nodes that have the message or receive it now, except this receiver, which would drop it
        as a duplicate. The fingerprints are those known now: a peer may have responded since the message was posted.
        """
        names = [*self.touched, self.sender, *(peer.fingerprint or "" for peer in self.receivers)]
        return self.message.json_for_peer(
            [name for name in dict.fromkeys(names) if name and name != receiver], with_origin=with_origin
        )


class Outbox:
    """A queue of envelopes that drops its oldest beyond the bounds. Does not read the clock."""

    def __init__(self, options: PeerOptions) -> None:
        self._options = options
        self._queue: deque[Envelope] = deque()
        self._size = 0  # bytes

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Envelope]:
        return iter(self._queue)

    def put(self, envelope: Envelope) -> int:
        """Append; return how many were dropped to stay within the bounds."""
        self._queue.append(envelope)
        self._size += envelope.size
        return self.trim(envelope.posted)

    def trim(self, now: float) -> int:
        """Drop the oldest beyond the bounds; return how many."""
        before = len(self._queue)
        while self._queue and self._is_beyond_bounds(now):
            self._size -= self._queue.popleft().size
        return before - len(self._queue)

    def take(self, max_count: int, max_bytes: int) -> list[Envelope]:
        """Remove and return the next batch: messages of one instance, within the bounds, but at least one.

        Messages of other instances may be overtaken: their subscribers are others.
        """
        batch: list[Envelope] = []
        skipped: list[Envelope] = []
        while self._queue and len(batch) < max_count and len(skipped) < MAX_SKIPPED:
            envelope = self._queue[0]
            if batch and envelope.message.instance != batch[0].message.instance:
                skipped.append(self._queue.popleft())
                continue
            max_bytes -= envelope.size
            if batch and max_bytes < 0:
                break
            batch.append(self._queue.popleft())
        self._queue.extendleft(reversed(skipped))
        self._size -= sum(envelope.size for envelope in batch)
        return batch

    def put_back(self, batch: Sequence[Envelope]) -> None:
        """Return a batch that could not be sent to the front."""
        self._queue.extendleft(reversed(batch))
        self._size += sum(envelope.size for envelope in batch)

    def first_number(self, origin: str) -> int | None:
        """Return the number of the first message of an origin; None without one."""
        numbers = (each.message.number for each in self._queue if each.message.origin == origin)
        return next(numbers, None)

    def clear(self) -> None:
        """Drop everything."""
        self._queue.clear()
        self._size = 0

    def _is_beyond_bounds(self, now: float) -> bool:
        return (
            len(self._queue) > self._options.max_count
            or self._size > self._options.max_bytes
            or now - self._queue[0].posted > self._options.max_age
        )
