"""What waits for a browser that does not take it yet, and how much waits for all of them together."""

import socket
import ssl
from collections import deque
from collections.abc import Iterator

from aphlict.config.settings import Limits
from aphlict.core.budget import Budget, Holder

CHUNK = 16 * 1024  # bytes that are joined for one `send`; a longer frame goes by itself
MAX_CHUNKS = 16  # sent in a row before other connections have their turn
SHARE = 64 * 1024  # bytes that a connection may hold without being closed in favour of others
ADDRESS_PART = 4  # one address may hold one in so many bytes, where `limits.send_buffer.address` is not given
ITERATOR_COST = (
    32 * 1024
)  # bytes that a replay counts for, whatever it may bring: the list that it works from
FRAME_COST = 500  # bytes of the objects that come with a frame: its uniqueID, its channels
REFERENCE_COST = 16  # bytes that one more place in a queue takes

WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Part = bytes | Iterator[bytes]


class BufferBudget(Budget):
    """What waits for all connections, and what has arrived of what is not whole.

    A frame that waits for many is there once, and counts once. What a connection is charged for it is its part of the
    frame when it is added: the first pays all, the second half, and so on.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__("limits.send_buffer.total", 0, SHARE, "limits.send_buffer.address")
        self._waits: dict[int, int] = {}  # id of a frame to how often it waits
        self.reload(limits)

    def reload(self, limits: Limits) -> None:
        """Use other limits from now on."""
        self.limit = limits.send_buffer_total
        self.part = limits.send_buffer_address or limits.send_buffer_total // ADDRESS_PART

    def add(self, frame: bytes) -> int:
        """A frame waits for one more: returns what that one is charged for it."""
        key = id(frame)
        count = self._waits[key] = self._waits.get(key, 0) + 1
        size = FRAME_COST + len(frame)
        self.used += REFERENCE_COST if count > 1 else REFERENCE_COST + size
        return REFERENCE_COST + size // count

    def remove(self, frame: bytes) -> None:
        """A frame waits for one less."""
        key = id(frame)
        count = self._waits[key] - 1
        if count:
            self._waits[key] = count
            self.used -= REFERENCE_COST
        else:
            del self._waits[key]
            self.used -= REFERENCE_COST + FRAME_COST + len(frame)


class WriteBuffer:
    """What waits for one connection, in order; nothing is copied. It exists only while something waits, and is to be
    cleared in the end. `size`: bytes that wait, however many connections they wait for. `stalled_since`: when it was
    first seen that nothing is taken, until something is."""

    __slots__ = ("_charged", "_holder", "_offset", "_parts", "_pool", "_tried", "size", "stalled_since")

    def __init__(self, pool: BufferBudget, holder: Holder) -> None:
        self._pool = pool
        self._holder = holder
        self._parts: deque[Part] = deque()
        self._offset = 0  # bytes of the first part that have been sent
        self._tried = 0  # bytes of the last `peek`, of which TLS may have put some on the wire
        self._charged = 0  # bytes that the pool attributes to the connection for what waits
        self.size = 0
        self.stalled_since: float | None = None

    def add(self, part: Part) -> bool:
        """Append. Returns whether the pool has to make room."""
        self._parts.append(part)
        if isinstance(part, bytes):
            return self._add(part)
        self.size += ITERATOR_COST
        self._charged += ITERATOR_COST
        self._pool.used += ITERATOR_COST
        return self._pool.attribute(self._holder, ITERATOR_COST)

    def _add(self, frame: bytes) -> bool:
        charge = self._pool.add(frame)
        self.size += len(frame)
        self._charged += charge
        return self._pool.attribute(self._holder, charge)

    def _shrink(self, size: int) -> None:
        """So many bytes wait no longer: the charge goes down in proportion."""
        left = self._charged * (self.size - size) // self.size if self.size > size else 0
        self._pool.attribute(self._holder, left - self._charged)
        self._charged = left
        self.size -= size

    def peek(self) -> bytes | memoryview:
        """What is to be sent next: empty where nothing is left. It begins as the last one did, if that was not
        taken: TLS wants to be given the same bytes again. Raises what an iterator that was added raises."""
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
        try:
            while self._parts and size < CHUNK:
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
        self._pool.used -= ITERATOR_COST
        self._shrink(ITERATOR_COST)

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
        self._shrink(len(first))

    def send_to(self, sock: socket.socket) -> bool:
        """Send what the socket accepts now. Returns whether nothing is left.

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
        """Attribute what waits to another connection object."""
        self._pool.attribute(self._holder, -self._charged)
        self._pool.attribute(holder, self._charged)
        self._holder = holder

    def check_stall(self, now: float, timeout: float) -> float | None:
        """Return the next deadline; None if nothing has been accepted for `timeout` seconds."""
        if self.stalled_since is None:
            self.stalled_since = now
        end = self.stalled_since + timeout
        return end if now < end else None

    def clear(self, *, but_begun: bool = False) -> None:
        """Drop all, save the rest of what was begun if `but_begun`: whole frames."""
        kept: deque[Part] = deque()
        left = max(self._offset, self._tried) if but_begun else 0
        for part in self._parts:
            if not isinstance(part, bytes):
                self._drop_iterator()
            elif left > 0:
                kept.append(part)
                left -= len(part)
            else:
                self._pool.remove(part)
                self._shrink(len(part))
        self._parts = kept
