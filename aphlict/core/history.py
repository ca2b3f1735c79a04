"""Recently published messages: bounded by count for each instance, and by age and memory for all together."""

import heapq
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import dropwhile, groupby, islice, takewhile
from typing import NamedTuple

from aphlict.core.message import Message, digest

MAX_MESSAGES = 4096  # of an instance
MAX_AGE = 60.0  # seconds
MAX_MERGED_CHANNELS = 32  # of more channels, the newest entries of the instance are searched before merging
NEWEST_ENTRIES = 128  # searched in this way
MAX_EVICTED_ENTRIES = 1024  # that the store may keep before it compacts


class Eviction(NamedTuple):
    """The end of what was evicted: `before` is the uniqueID of the last message, `at` the latest time of all."""

    before: str
    at: float


class Evictions(NamedTuple):
    """What the histories of a process lack: everything before `begin`, and what was evicted from each instance.

    `at` applies to instances that are not listed.
    """

    begin: float
    at: float
    instances: dict[str, Eviction]

    @property
    def latest(self) -> float:
        """The time of the latest evicted message."""
        return max([self.at, *(each.at for each in self.instances.values())])


class Entry:
    """A kept message. `sequence` increases with every message of the node; `at` is when it was accepted (seconds).

    `latest` is the highest `at` in the history up to this entry: restored messages are older than those before them.
    """

    __slots__ = ("_digest", "at", "history", "latest", "message", "sequence")

    def __init__(self, sequence: int, at: float, message: Message, history: "InstanceHistory | None") -> None:
        self.sequence = sequence
        self.at = self.latest = at
        self.message = message
        self.history = history  # None once the entry has been evicted
        self._digest: bytes | None = None

    @property
    def digest(self) -> bytes:
        """The digest of the uniqueID, computed once: a resuming client is compared with thousands of entries."""
        if self._digest is None:
            self._digest = digest(self.message.unique_id)
        return self._digest


class InstanceHistory:
    """The kept messages of one instance, indexed by uniqueID and by channel.

    `before` is the uniqueID of the last evicted message, at first a name that stands for the start of the history: a
    client that had it has missed nothing but the kept messages. `evicted_sequence` is the sequence of that message.
    `evicted_at` is the latest time of all evicted messages; no later message has been evicted.
    """

    __slots__ = (
        "_by_channel",
        "_by_id",
        "before",
        "entries",
        "evicted_at",
        "evicted_sequence",
        "last_sequence",
    )

    def __init__(self, before: str, evicted_sequence: int = 0, evicted_at: float = 0.0) -> None:
        self.before = before
        self.evicted_sequence = evicted_sequence
        self.evicted_at = evicted_at
        self.entries: deque[Entry] = deque()
        self.last_sequence = 0
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
        self.last_sequence = entry.sequence
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
        self.before, self.evicted_sequence = entry.message.unique_id, entry.sequence
        self.evicted_at = max(self.evicted_at, entry.at)
        del self._by_id[entry.message.unique_id]
        for channel in entry.message.channels:
            held = self._by_channel[channel]
            if isinstance(held, deque):
                held.popleft()
            if not isinstance(held, deque) or not held:
                del self._by_channel[channel]
        return entry

    def mark_evicted(self, before: str, at: float, sequence: int) -> None:
        """Treat what another process evicted as evicted here: no client can resume from before this sequence."""
        self.evicted_sequence = sequence
        if at >= self.evicted_at:
            self.before, self.evicted_at = before, at

    def sequence_of(self, unique_ids: Collection[str]) -> int | None:
        """Return the lowest sequence of these messages; None where what followed them is not known any more."""
        if self.before in unique_ids:
            return 0
        found = (entry.sequence for name in unique_ids if (entry := self._by_id.get(name)))
        return min(found, default=None)

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

    def _queues(self, channels: Iterable[str]) -> list[Sequence[Entry]]:
        """Return the entries of each of these channels that has some, oldest first."""
        held = [held for channel in channels if (held := self._by_channel.get(channel))]
        return [(each,) if isinstance(each, Entry) else each for each in held]

    def newest(self, channels: Collection[str], until: int, count: int) -> list[Entry]:
        """Return the last `count` entries on any of these channels, up to the sequence `until`; newest first."""
        queues = self._queues(channels)
        if len(queues) > MAX_MERGED_CHANNELS:
            newest = [
                entry for entry in islice(reversed(self.entries), NEWEST_ENTRIES) if entry.sequence <= until
            ]
            found = list(islice((entry for entry in newest if _is_on(entry, channels)), count))
            if len(found) == count:
                return found
        merged = heapq.merge(*map(reversed, queues), key=lambda entry: -entry.sequence)
        unique = (
            entry for entry, _ in groupby(merged)
        )  # an entry on several channels is merged several times
        return list(islice(dropwhile(lambda entry: entry.sequence > until, unique), count))

    def sequence_at(self, at: float) -> int:
        """Return the sequence of the last entry accepted by `at`, or that before the oldest kept entry."""
        place = bisect_right(self.entries, at, key=lambda entry: entry.latest)
        return self.entries[place].sequence - 1 if place < len(self.entries) else self.last_sequence

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

    `overflowed` counts messages that were evicted before they were MAX_AGE old.
    """

    def __init__(self, max_memory: int, max_messages: int = MAX_MESSAGES, max_age: float = MAX_AGE) -> None:
        self.max_memory = max_memory  # bytes
        self.memory_size = 0  # bytes
        self.sequence = 0
        self.overflowed = 0
        self._max_messages = max_messages
        self._max_age = max_age
        self._entries: deque[Entry] = deque()  # of all histories; may contain evicted entries
        self._evicted = 0  # how many

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

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Iterate over the kept entries after a sequence, in order; the store must not change meanwhile."""
        place = bisect_right(self._entries, after, key=lambda entry: entry.sequence)
        return (entry for entry in islice(self._entries, place, None) if entry.history is not None)

    def evict_before(self, history: InstanceHistory, at: float) -> None:
        """Evict the oldest entries of a history up to the first that was accepted at `at` or later."""
        while history.entries and history.entries[0].at < at:
            self._evict_oldest(history)
        self._compact()

    def _evict_oldest(self, history: InstanceHistory) -> None:
        self.memory_size -= history.evict_oldest().message.memory_size
        self._evicted += 1

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
