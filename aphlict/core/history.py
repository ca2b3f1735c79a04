"""Recently published messages: bounded by count for each instance, and by age and memory for all together."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice, takewhile

from msgspec import Struct

from aphlict.core.message import Message

MAX_MESSAGES = 4096  # of an instance
MAX_AGE = 60.0  # seconds
MAX_EVICTED_ENTRIES = 1024  # that the store may keep before it compacts
MAX_REPEATED = 10_000  # messages whose repetitions are counted


class Evicted(Struct, frozen=True, array_like=True, gc=False):
    """The last evicted message of an origin; `at` is when this node had accepted it (monotonic seconds)."""

    number: int
    at: float
    unique_id: str


class Entry:
    """A kept message. `sequence` increases with every message of the node; `at` is when it was accepted (seconds).

    `latest` is the highest `at` in the history up to this entry: restored messages are older than those before them.
    `copies`: the other numbers of a message that was published to several nodes.
    """

    __slots__ = ("at", "copies", "history", "latest", "message", "sequence")

    def __init__(self, sequence: int, at: float, message: Message, history: "InstanceHistory | None") -> None:
        self.sequence = sequence
        self.at = self.latest = at
        self.message = message
        self.history = history  # None once the entry has been evicted
        self.copies: tuple[tuple[str, int], ...] = ()

    def is_covered_by(self, version: Mapping[str, int]) -> bool:
        """Whether a client with this version has the message."""
        message = self.message
        return message.number <= version.get(message.origin, 0) or (
            bool(self.copies) and any(number <= version.get(origin, 0) for origin, number in self.copies)
        )


class InstanceHistory:
    """The kept messages of one instance, indexed by uniqueID and by channel.

    `evicted`: the last evicted message of each origin; all before it are evicted too. `evicted` may be that of other
    histories, of which this one must not claim to know more.
    """

    __slots__ = ("_by_channel", "_by_id", "entries", "evicted")

    def __init__(self, evicted: Mapping[str, Evicted] | None = None) -> None:
        self.evicted = dict(evicted or {})
        self.entries: deque[Entry] = deque()
        self._by_id: dict[str, Entry] = {}
        # Most channels have one message; a deque for each would take 600 bytes.
        self._by_channel: dict[str, Entry | deque[Entry]] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, unique_id: str) -> bool:
        return unique_id in self._by_id

    def append(self, entry: Entry) -> None:
        """Keep an entry whose sequence is higher than all others."""
        if self.entries and (latest := self.entries[-1].latest) > entry.at:
            entry.latest = latest
        self.entries.append(entry)
        self._by_id[entry.message.unique_id] = entry
        for channel in entry.message.channels:
            held = self._by_channel.get(channel)
            if held is None:
                self._by_channel[channel] = entry
            elif isinstance(held, Entry):
                self._by_channel[channel] = deque((held, entry))
            else:
                held.append(entry)

    def evict_oldest(self) -> Entry:
        """Remove and return the oldest entry."""
        entry = self.entries.popleft()
        entry.history = None
        message = entry.message
        unique_id = message.unique_id
        self.mark_evicted(message.origin, Evicted(message.number, entry.at, unique_id))
        for origin, number in entry.copies:
            self.mark_evicted(origin, Evicted(number, entry.at, unique_id))
        del self._by_id[unique_id]
        for channel in message.channels:
            held = self._by_channel[channel]
            if isinstance(held, deque):
                held.popleft()
            if not isinstance(held, deque) or not held:
                del self._by_channel[channel]
        return entry

    def mark_evicted(self, origin: str, evicted: Evicted) -> None:
        """Note that the messages of an origin up to this one are evicted."""
        before = self.evicted.get(origin)
        if before is None or before.number < evicted.number:
            self.evicted[origin] = evicted

    def get(self, unique_id: str) -> Entry | None:
        """Return the entry of a message; None once it has been evicted."""
        return self._by_id.get(unique_id)

    def get_by_sequence(self, sequence: int) -> Entry | None:
        """Return the entry with this sequence; None once it has been evicted."""
        entries = self.entries
        place = sequence - entries[0].sequence if entries else -1
        if place < 0:
            return None
        if place >= len(entries) or entries[place].sequence != sequence:
            # Messages of other instances took some of the numbers between, so the entry is further to the left.
            place = bisect_left(
                entries, sequence, hi=min(place, len(entries)), key=lambda entry: entry.sequence
            )
        return entries[place] if place < len(entries) and entries[place].sequence == sequence else None

    def last_until(self, sequence: int) -> Entry | None:
        """Return the last entry that is not after a sequence."""
        place = bisect_right(self.entries, sequence, key=lambda entry: entry.sequence)
        return self.entries[place - 1] if place else None

    def _queues(self, channels: Iterable[str]) -> list[Sequence[Entry]]:
        """Return the entries of each of these channels that has some, oldest first."""
        held = [held for channel in channels if (held := self._by_channel.get(channel))]
        return [(each,) if isinstance(each, Entry) else each for each in held]

    def select(self, channels: Collection[str], wanted: Callable[[Entry], bool]) -> list[Entry]:
        """Return the entries on any of these channels, back to the last one that is wanted; oldest first.

        `wanted` must hold for all entries that are newer than one for which it holds. The cost is proportional to the
        number of channels and of entries found, not to the size of the history.
        """
        queues = self._queues(channels)
        if len(queues) == 1:
            return list(takewhile(wanted, reversed(queues[0])))[::-1]
        if sum(map(len, queues)) > len(self.entries):  # most entries are on several of the channels
            newest = takewhile(wanted, reversed(self.entries))
            return [entry for entry in newest if _is_on(entry, channels)][::-1]
        found = {entry.sequence: entry for queue in queues for entry in takewhile(wanted, reversed(queue))}
        return [found[sequence] for sequence in sorted(found)]

    def age(self, now: float) -> float | None:
        """Return the age of the oldest entry in seconds; None without entries."""
        return now - self.entries[0].at if self.entries else None


def _is_on(entry: Entry, channels: Collection[str]) -> bool:
    return any(map(channels.__contains__, entry.message.channels))


class HistoryStore:
    """All histories of a node: numbers the messages and enforces the bounds.

    `evictions` counts evicted messages, `overflowed` those of them that were not MAX_AGE old.
    """

    def __init__(self, max_memory: int, max_messages: int = MAX_MESSAGES, max_age: float = MAX_AGE) -> None:
        self.max_memory = max_memory  # bytes
        self.memory_size = 0  # bytes
        self.sequence = 0
        self.evictions = 0
        self.overflowed = 0
        self._max_messages = max_messages
        self._max_age = max_age
        self._entries: deque[Entry] = deque()  # of all histories; may contain evicted entries
        self._evicted = 0  # how many

    @property
    def count(self) -> int:
        """The number of messages that are kept."""
        return len(self._entries) - self._evicted

    def append(self, history: InstanceHistory, message: Message, now: float) -> Entry:
        """Keep a message; evict the oldest ones that exceed a bound."""
        self.sequence += 1
        entry = Entry(self.sequence, now, message, history)
        history.append(entry)
        self._entries.append(entry)
        self.memory_size += message.memory_size
        if len(history) > self._max_messages:
            self._evict_oldest(history)
            self.overflowed += 1
            self._compact()
        if self.memory_size > self.max_memory:
            self.expire(now)
        return entry

    def skip_sequence(self) -> int:
        """Return the next sequence, which no message will have."""
        self.sequence += 1
        return self.sequence

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Iterate over the kept entries after a sequence, in order; the store must not change meanwhile."""
        place = bisect_right(self._entries, after, key=lambda entry: entry.sequence)
        return (entry for entry in islice(self._entries, place, None) if entry.history is not None)

    def _evict_oldest(self, history: InstanceHistory) -> None:
        self.memory_size -= history.evict_oldest().message.memory_size
        self.evictions += 1
        self._evicted += 1

    @property
    def first_sequence(self) -> int:
        """The sequence of the oldest kept message, or of the next one."""
        return self._entries[0].sequence if self._entries else self.sequence + 1

    def expire(self, now: float) -> None:
        """Evict what is older than MAX_AGE or exceeds the bound in memory, oldest first."""
        horizon = now - self._max_age
        entries = self._entries
        while entries:
            oldest = entries[0]
            if oldest.history is not None and oldest.at >= horizon:
                if self.memory_size <= self.max_memory:
                    break
                self.overflowed += 1
            self._forget(entries.popleft())

    def _compact(self) -> None:
        """Remove evicted entries, once they are many and more than half of all: amortized O(1) for each."""
        if self._evicted > MAX_EVICTED_ENTRIES and self._evicted * 2 > len(self._entries):
            self._entries = deque(entry for entry in self._entries if entry.history is not None)
            self._evicted = 0

    def _forget(self, entry: Entry) -> None:
        if entry.history is None:
            self._evicted -= 1
            return
        # Histories are appended to in the order of the store, so this entry is the oldest of its own.
        self.memory_size -= entry.message.memory_size
        entry.history.evict_oldest()
        self.evictions += 1


class Repeated(Struct, gc=False):
    """How often a message was published again, and when for the last time (monotonic seconds)."""

    count: int = 0
    at: float = 0.0


class RepeatedMessages:
    """Messages that publishers sent again under the same uniqueID: only the first of each was delivered."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str], Repeated] = {}

    def add(self, instance: str, unique_id: str, now: float) -> None:
        """Count one more."""
        name = instance, unique_id
        if name in self._by_name or len(self._by_name) < MAX_REPEATED:
            repeated = self._by_name.setdefault(name, Repeated())
            repeated.count += 1
            repeated.at = now

    def get(self, instance: str, unique_id: str) -> Repeated | None:
        """Return the count of a message; None if it was published once."""
        return self._by_name.get((instance, unique_id))

    def sweep(self, now: float) -> None:
        """Forget what is older than the history. To be called every few seconds."""
        if self._by_name:
            self._by_name = {name: each for name, each in self._by_name.items() if each.at > now - MAX_AGE}
