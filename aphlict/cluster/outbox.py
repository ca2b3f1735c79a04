"""What waits for one peer: in order, and bounded by count, bytes and age."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from aphlict.core.message import Message

TOUCHED_COST = 64  # bytes that Python needs for a fingerprint, beside its letters
MOST_SKIPPED = 1024  # how far one batch looks past messages of other instances


class Named(Protocol):
    """A node; its fingerprint is known once it has answered."""

    @property
    def fingerprint(self) -> str | None: ...


@dataclass(frozen=True)
class Bounds:
    """How much may wait for a peer, how much travels together, and how long to wait for it."""

    count: int = 4096
    size: int = 16 * 1024 * 1024
    age: float = 60.0  # seconds, the length of the history
    batch_count: int = 256
    batch_size: int = 512 * 1024  # well below the 1 MiB that an admin server takes
    connect: float = 3.0  # seconds, name look-up and TLS included
    answer: float = 5.0
    first_retry: float = 0.2
    last_retry: float = 10.0
    look_again: float = 15.0  # seconds of silence after which a peer is asked whether it is still there


@dataclass(frozen=True)
class Envelope:
    """A message on its way to several peers at once."""

    message: Message
    sender: str
    receivers: Sequence[Named]
    posted: float
    touched: tuple[str, ...] = ()  # the nodes that had it before, by their fingerprints

    @property
    def size(self) -> int:
        """About how many bytes it takes, in a POST and in memory."""
        return self.message.wire_size + sum(map(len, self.touched)) + TOUCHED_COST * len(self.touched)

    def body(self, receiver: str | None) -> bytes:
        """The JSON for one of the receivers: `touched` names all that have the message or are being sent it,
        save this receiver, who would otherwise take it for old. Fingerprints are taken as they are known now,
        which may be later than when the message was posted."""
        names = [*self.touched, self.sender, *(peer.fingerprint or "" for peer in self.receivers)]
        return self.message.json_for_peer(
            [name for name in dict.fromkeys(names) if name and name != receiver]
        )


class Outbox:
    """A queue of envelopes; what no longer fits is dropped from its old end. Times are given, never read."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._waiting: deque[Envelope] = deque()
        self._size = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, envelope: Envelope) -> int:
        """Append; return how many were dropped to stay within the bounds."""
        self._waiting.append(envelope)
        self._size += envelope.size
        return self.trim(envelope.posted)

    def trim(self, now: float) -> int:
        """Drop what is too old or too much; return how many that were."""
        before = len(self._waiting)
        while self._waiting and self._is_too_much(now):
            self._size -= self._waiting.popleft().size
        return before - len(self._waiting)

    def take(self, count: int, size: int) -> list[Envelope]:
        """Remove and return the next ones: of one instance, at most `count` and at most `size` bytes, but one
        in any case. Only messages of other instances are overtaken, whose readers are others too."""
        batch: list[Envelope] = []
        skipped: list[Envelope] = []
        while self._waiting and len(batch) < count and len(skipped) < MOST_SKIPPED:
            envelope = self._waiting[0]
            if batch and envelope.message.instance != batch[0].message.instance:
                skipped.append(self._waiting.popleft())
                continue
            size -= envelope.size
            if batch and size < 0:
                break
            batch.append(self._waiting.popleft())
        self._waiting.extendleft(reversed(skipped))
        self._size -= sum(envelope.size for envelope in batch)
        return batch

    def give_back(self, batch: Sequence[Envelope]) -> None:
        """Put what was taken and could not be sent back to the front."""
        self._waiting.extendleft(reversed(batch))
        self._size += sum(envelope.size for envelope in batch)

    def clear(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self._size = 0

    def _is_too_much(self, now: float) -> bool:
        return (
            len(self._waiting) > self._bounds.count
            or self._size > self._bounds.size
            or now - self._waiting[0].posted > self._bounds.age
        )
