"""Bytes that clients do not accept yet: a queue for each connection, and a budget that all of them share."""

import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from aphlict.config.settings import Limits
from aphlict.core.budget import Budget, Holder

MAX_CHUNK = 16 * 1024  # bytes that are joined for one `send`; a longer frame is sent by itself
MAX_CHUNKS = 16  # sent in a row before other connections have their turn
CONNECTION_SHARE = 64 * 1024  # bytes that a connection may hold without being closed in favour of others
ADDRESS_PART = 4  # without `limits.send_buffer.address`, an address may hold one byte in so many of the total
ITERATOR_COST = 32 * 1024  # bytes counted for a replay, whatever it yields: the list that it iterates over
FRAME_COST = 500  # bytes at most of what belongs to a waiting frame: its object, and its count in the budget
REFERENCE_COST = 16  # bytes of one more reference in a queue
MAX_UNSENT = 4  # frames of which one is a message, the others replies
MAX_BACKLOGS = 10_000  # of all connections: the last ones, for traces

WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Part = bytes | Iterator[bytes]


class BufferBudget(Budget):
    """The buffered bytes of all connections, and the received bytes of incomplete requests and messages.

    A frame that many connections buffer exists once and counts once. Each connection is charged its part of the
    frame at the time when it is added: the first one all of it, the second one half, and so on.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__("limits.send_buffer.total", 0, CONNECTION_SHARE, "limits.send_buffer.address")
        self._references: dict[int, int] = {}  # id of a frame -> queues that hold it
        self.reload(limits)

    def reload(self, limits: Limits) -> None:
        """Apply other limits."""
        self.limit = limits.send_buffer_total
        self.part = limits.send_buffer_address or limits.send_buffer_total // ADDRESS_PART

    def add(self, frame: bytes) -> int:
        """Count one more reference to a frame. Returns the bytes to charge for it."""
        key = id(frame)
        count = self._references[key] = self._references.get(key, 0) + 1
        size = FRAME_COST + len(frame)
        self.used += REFERENCE_COST if count > 1 else REFERENCE_COST + size
        return REFERENCE_COST + size // count

    def remove(self, frame: bytes) -> None:
        """Count one reference less."""
        key = id(frame)
        count = self._references[key] - 1
        if count:
            self._references[key] = count
            self.used -= REFERENCE_COST
        else:
            del self._references[key]
            self.used -= REFERENCE_COST + FRAME_COST + len(frame)


class Backlog(NamedTuple):
    """A time in which bytes waited for the connection with this number, which has accepted all of them (monotonic
    seconds)."""

    number: int
    since: float
    until: float


class WriteBuffer:
    """The buffered bytes of one connection, in order, without copies. It exists only while there are any; `clear` it
    at the end.

    `size`: buffered bytes, however many connections share them. `since`: when the first of them was buffered.
    `stalled_since`: when it was first seen that the client accepts nothing; None once it has.
    """

    __slots__ = (
        "_attempted",
        "_budget",
        "_cost",
        "_dropped",
        "_holder",
        "_offset",
        "_parts",
        "since",
        "size",
        "stalled_since",
    )

    def __init__(self, budget: BufferBudget, holder: Holder) -> None:
        self._budget = budget
        self._holder = holder
        self._parts: deque[Part] = deque()
        self._offset = 0  # bytes of the first part that have been sent
        self._attempted = 0  # bytes of the last `peek`, of which TLS may have sent some
        self._cost = 0  # bytes that the budget attributes to the connection
        self._dropped: tuple[bytes, ...] = ()  # the first frames that `clear` dropped
        self.size = 0
        self.since = time.monotonic()
        self.stalled_since: float | None = None

    def add(self, part: Part) -> bool:
        """Append bytes, or an iterator of bytes. Returns whether the budget has to make room."""
        self._parts.append(part)
        if isinstance(part, bytes):
            return self._add(part)
        self.size += ITERATOR_COST
        self._cost += ITERATOR_COST
        self._budget.used += ITERATOR_COST
        return self._budget.attribute(self._holder, ITERATOR_COST)

    def _add(self, frame: bytes) -> bool:
        charge = self._budget.add(frame)
        self.size += len(frame)
        self._cost += charge
        return self._budget.attribute(self._holder, charge)

    def _shrink(self, size: int) -> None:
        """Subtract bytes that wait no longer, and reduce the cost in proportion."""
        left = self._cost * (self.size - size) // self.size if self.size > size else 0
        self._budget.attribute(self._holder, left - self._cost)
        self._cost = left
        self.size -= size

    def peek(self) -> bytes | memoryview:
        """Return the bytes to send next; empty if nothing is left.

        They begin as the last ones, if those were not accepted: TLS requires the same bytes again. Raises the
        exceptions of an iterator that was added.
        """
        self._unroll()
        if not self._parts:
            return b""
        chunk = self._chunk()
        self._attempted = len(chunk)
        return chunk

    def _unroll(self) -> None:
        """Replace iterators among the next parts by their frames, as many as the next chunk needs."""
        ready: list[bytes] = []
        size = 0
        try:
            while self._parts and size < MAX_CHUNK:
                frame = self._next()
                if frame is not None:
                    ready.append(frame)
                    size += len(frame)
        finally:  # an iterator may raise
            self._parts.extendleft(reversed(ready))

    def _next(self) -> bytes | None:
        first = self._parts[0]
        if isinstance(first, bytes):
            self._parts.popleft()
            return first
        frame = next(first, None)
        if frame is None:
            self._drop_iterator()
            self._parts.popleft()
        else:
            self._add(frame)
        return frame

    def _drop_iterator(self) -> None:
        self._budget.used -= ITERATOR_COST
        self._shrink(ITERATOR_COST)

    def _chunk(self) -> bytes | memoryview:
        first = self._parts[0]
        assert isinstance(first, bytes)
        if self._offset:
            return memoryview(first)[self._offset :]
        if len(first) >= MAX_CHUNK or len(self._parts) == 1:
            return first
        frames: list[bytes] = []
        size = 0
        for part in self._parts:
            if not isinstance(part, bytes) or size + len(part) > MAX_CHUNK:
                break
            frames.append(part)
            size += len(part)
        return b"".join(frames)

    def advance(self, sent: int) -> None:
        """Remove bytes that `peek` returned and that have been sent."""
        if sent:
            self.stalled_since = None
        self._attempted = 0
        self._offset += sent
        while self._parts:
            first = self._parts[0]
            if not isinstance(first, bytes) or self._offset < len(first):
                return
            self._offset -= len(first)
            self._drop_first(first)

    def _drop_first(self, first: bytes) -> None:
        self._parts.popleft()
        self._budget.remove(first)
        self._shrink(len(first))

    def send_to(self, sock: socket.socket) -> bool:
        """Send as much as the socket accepts now. Returns whether the buffer is empty.

        Raises OSError if the connection is lost, HistoryEvicted as a replay does.
        """
        for _ in range(MAX_CHUNKS):
            chunk = self.peek()
            if not chunk:
                return True
            try:
                sent = sock.send(chunk)
            except WOULD_BLOCK:
                return False
            self.advance(sent)
            if sent < len(chunk):
                return False
        return False

    def set_holder(self, holder: Holder) -> None:
        """Attribute the buffered bytes to another connection object."""
        self._budget.attribute(self._holder, -self._cost)
        self._budget.attribute(holder, self._cost)
        self._holder = holder

    def check_stall(self, now: float, timeout: float) -> float | None:
        """Return the next deadline; None if nothing has been accepted for `timeout` seconds."""
        if self.stalled_since is None:
            self.stalled_since = now
        end = self.stalled_since + timeout
        return end if now < end else None

    def clear(self, *, but_begun: bool = False) -> None:
        """Drop everything; with `but_begun` except for the frames of which a part has been sent."""
        kept: deque[Part] = deque()
        left = max(self._offset, self._attempted) if but_begun else 0
        dropped: list[bytes] = []
        for part in self._parts:
            if not isinstance(part, bytes):
                self._drop_iterator()
            elif left > 0:
                kept.append(part)
                left -= len(part)
            else:
                if len(dropped) < MAX_UNSENT:
                    dropped.append(part)
                self._budget.remove(part)
                self._shrink(len(part))
        self._parts = kept
        self._dropped = self._dropped or tuple(dropped)

    def frames(self) -> Iterator[bytes]:
        """Iterate over the buffered frames, in order, without those of replays that have not begun."""
        return (part for part in self._parts if isinstance(part, bytes))

    def unsent(self) -> tuple[bytes, ...]:
        """Return the first frames that the client has not received: dropped ones, or else those that wait."""
        return self._dropped or tuple(islice(self.frames(), MAX_UNSENT))


class _NoHolder:
    """The holder of CLOSED_BUFFER."""

    limit_key = None

    def close_over_limit(self, _limit: str, /) -> None:
        """Do nothing: the buffer is empty."""


# The write buffer of every closed connection, always empty: `send` needs to test only one attribute while it is open.
CLOSED_BUFFER = WriteBuffer(BufferBudget(Limits()), _NoHolder())
