"""What waits for a browser that does not take it yet, and how much waits for all of them together."""

from collections import deque
from collections.abc import Iterator

from aphlict.config.settings import Limits

CHUNK = 16 * 1024  # bytes that are joined for one `send`; a longer frame goes by itself
ITERATOR_COST = (
    32 * 1024
)  # bytes that a replay counts for, whatever it may bring: the list that it works from
REFERENCE_COST = 16  # bytes that one more place in a queue takes

Part = bytes | Iterator[bytes]


class Pool:
    """The memory of all backlogs. A frame that waits for many is there once, and counts once."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.used = 0
        self._waits: dict[int, int] = {}  # id of a frame to how often it waits

    def bound(self) -> int:
        """How much may wait for one browser now: `limits.waiting`, and never more than what is still free."""
        return min(self.limits.limits_waiting, self.limits.limits_waiting_all - self.used)

    @property
    def bounding(self) -> str:
        """The limit that is the narrower one now, by its key."""
        return "limits.waiting" if self.bound() == self.limits.limits_waiting else "limits.waiting.all"

    @property
    def is_full(self) -> bool:
        """Whether more waits than may, whoever it waits for."""
        return self.used > self.limits.limits_waiting_all

    def add(self, frame: bytes) -> None:
        """A frame waits for one more."""
        key = id(frame)
        count = self._waits.get(key, 0)
        self._waits[key] = count + 1
        self.used += REFERENCE_COST if count else REFERENCE_COST + len(frame)

    def remove(self, frame: bytes) -> None:
        """A frame waits for one less."""
        key = id(frame)
        count = self._waits[key] - 1
        if count:
            self._waits[key] = count
            self.used -= REFERENCE_COST
        else:
            del self._waits[key]
            self.used -= REFERENCE_COST + len(frame)


class Backlog:
    """What waits for one browser, in order; nothing is copied. It exists only while something waits, and is to be
    cleared in the end. `stalled_since`: when it was first seen that nothing is taken, until something is."""

    __slots__ = ("_offset", "_parts", "_pool", "_tried", "size", "stalled_since")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parts: deque[Part] = deque()
        self._offset = 0  # bytes of the first part that have been sent
        self._tried = 0  # bytes of the last `peek`, of which TLS may have put some on the wire
        self.size = 0
        self.stalled_since: float | None = None

    def add(self, part: Part) -> bool:
        """Append; False where more waits now than may."""
        self._parts.append(part)
        if isinstance(part, bytes):
            self._pool.add(part)
            self.size += len(part)
        else:
            self.size += ITERATOR_COST
        return self.size <= self._pool.bound()

    def peek(self) -> bytes | memoryview:
        """What is to be sent next: empty where nothing is left. It begins as the last one did, if that was not
        taken: TLS wants to be given the same bytes again."""
        self._unroll()
        if not self._parts:
            return b""
        chunk = self._chunk()
        self._tried = len(chunk)
        return chunk

    def _unroll(self) -> None:
        """Turn the iterators among the next parts into frames."""
        ready: list[bytes] = []
        size = 0
        while self._parts and size < CHUNK:
            frame = self._next()
            if frame is not None:
                ready.append(frame)
                size += len(frame)
        self._parts.extendleft(reversed(ready))

    def _next(self) -> bytes | None:
        first = self._parts[0]
        if isinstance(first, bytes):
            self._parts.popleft()
            return first
        frame = next(first, None)
        if frame is None:
            self._parts.popleft()
            self.size -= ITERATOR_COST
        else:
            self._pool.add(frame)
            self.size += len(frame)
        return frame

    def _chunk(self) -> bytes | memoryview:
        first = self._parts[0]
        assert isinstance(first, bytes)
        if self._offset:
            return memoryview(first)[self._offset :]
        if len(first) >= CHUNK or len(self._parts) == 1:
            return first
        frames: list[bytes] = []
        size = 0
        for part in self._parts:
            if not isinstance(part, bytes) or size + len(part) > CHUNK:
                break
            frames.append(part)
            size += len(part)
        return b"".join(frames)

    def advance(self, sent: int) -> None:
        """So many bytes of what `peek` gave have been sent."""
        if sent:
            self.stalled_since = None
        self._tried = 0
        self._offset += sent
        while self._parts:
            first = self._parts[0]
            if not isinstance(first, bytes) or self._offset < len(first):
                return
            self._offset -= len(first)
            self._drop_first(first)

    def _drop_first(self, first: bytes) -> None:
        self._parts.popleft()
        self._pool.remove(first)
        self.size -= len(first)

    def next_look(self, now: float, patience: float) -> float | None:
        """When to look again whether something has been taken; None where nothing was for so many seconds."""
        if self.stalled_since is None:
            self.stalled_since = now
        end = self.stalled_since + patience
        return end if now < end else None

    def clear(self, *, but_begun: bool = False) -> None:
        """Drop all, save the rest of what was begun if `but_begun`: whole frames."""
        kept: deque[Part] = deque()
        left = max(self._offset, self._tried) if but_begun else 0
        for part in self._parts:
            if not isinstance(part, bytes):
                continue
            if left > 0:
                kept.append(part)
                left -= len(part)
            else:
                self._pool.remove(part)
        self._parts = kept
        self.size = sum(len(part) for part in kept if isinstance(part, bytes))
