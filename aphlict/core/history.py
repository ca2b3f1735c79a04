"""What was published lately: bounded for each instance by count, for all together by age and bytes."""

import heapq
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import dropwhile, groupby, islice, takewhile
from typing import NamedTuple

from aphlict.core.message import Message
from aphlict.core.resume_token import digest

MAX_MESSAGES = 4096
MAX_AGE = 60.0  # seconds
FEW = 32  # channels with entries that are put in order; of more it is quicker to look at what is newest first
LATELY = 128  # entries that are looked at so
SLACK = 1024  # dropped entries that the archive may drag along before it is tidied


class Eviction(NamedTuple):
    """How far a history has been dropped: the uniqueID of the last such message, and the latest time of all."""

    before: str
    at: float


class Evictions(NamedTuple):
    """What is missing from the histories of a process: all before `begin`, and what was dropped from each instance.

    `at` is for instances that are not listed.
    """

    begin: float
    at: float
    instances: dict[str, Eviction]

    @property
    def latest(self) -> float:
        """The latest time of what was dropped."""
        return max([self.at, *(each.at for each in self.instances.values())])


class Entry:
    """One kept message: `sequence` grows with every message of the node, `at` is when it came (seconds).

    `latest` is the latest `at` of its history up to this entry: restored messages are older than those before them.
    """

    __slots__ = ("_digest", "at", "history", "latest", "message", "sequence")

    def __init__(self, sequence: int, at: float, message: Message, history: "InstanceHistory | None") -> None:
        self.sequence = sequence
        self.at = self.latest = at
        self.message = message
        self.history = history  # None once it has been dropped
        self._digest: bytes | None = None

    @property
    def digest(self) -> bytes:
        """What stands for the message in a position. It is computed once: readers look at thousands."""
        if self._digest is None:
            self._digest = digest(self.message.unique_id)
        return self._digest


class InstanceHistory:
    """The kept messages of one instance, found by uniqueID and by channel.

    `before` is the uniqueID of the message before the oldest one that is kept; at first, of none. `lost` is the
    sequence of that message, and `lost_at` the latest time of all that were dropped: nothing later has been.
    """

    __slots__ = ("_by_channel", "_by_id", "before", "entries", "last_sequence", "lost", "lost_at")

    def __init__(self, before: str, lost: int = 0, lost_at: float = 0.0) -> None:
        self.before = before
        self.lost = lost
        self.lost_at = lost_at
        self.entries: deque[Entry] = deque()
        self.last_sequence = 0
        self._by_id: dict[str, Entry] = {}
        # A channel with one message, the common case, holds just that one: a deque takes 600 bytes.
        self._by_channel: dict[str, Entry | deque[Entry]] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, unique_id: str) -> bool:
        return unique_id in self._by_id

    def append(self, entry: Entry) -> None:
        """Keep an entry that is newer than all others."""
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

    def drop_oldest(self) -> Entry:
        """Forget the oldest entry."""
        entry = self.entries.popleft()
        entry.history = None
        self.before, self.lost = entry.message.unique_id, entry.sequence
        self.lost_at = max(self.lost_at, entry.at)
        del self._by_id[entry.message.unique_id]
        for channel in entry.message.channels:
            held = self._by_channel[channel]
            if isinstance(held, deque):
                held.popleft()
            if not isinstance(held, deque) or not held:
                del self._by_channel[channel]
        return entry

    def lose(self, before: str, at: float, sequence: int) -> None:
        """Count as dropped what another process dropped: no reader can go on from before this sequence."""
        self.lost = sequence
        if at >= self.lost_at:
            self.before, self.lost_at = before, at

    def position(self, unique_ids: Collection[str]) -> int | None:
        """The sequence of the oldest of these messages; None where what came after them is no longer known."""
        if self.before in unique_ids:
            return 0
        found = (entry.sequence for name in unique_ids if (entry := self._by_id.get(name)))
        return min(found, default=None)

    def entry(self, unique_id: str) -> Entry | None:
        """The entry of a message; None once it has been forgotten."""
        return self._by_id.get(unique_id)

    def find(self, sequence: int) -> Entry | None:
        """The entry with this sequence; None once it has been forgotten."""
        entries = self.entries
        place = sequence - entries[0].sequence if entries else -1
        if place < 0:
            return None
        if (
            place >= len(entries) or entries[place].sequence != sequence
        ):  # other instances had messages between
            place = bisect_left(
                entries, sequence, hi=min(place, len(entries)), key=lambda entry: entry.sequence
            )
        return entries[place] if place < len(entries) and entries[place].sequence == sequence else None

    def _queues(self, channels: Iterable[str]) -> list[Sequence[Entry]]:
        """The entries of each of these channels that has some, oldest first."""
        held = [held for channel in channels if (held := self._by_channel.get(channel))]
        return [(each,) if isinstance(each, Entry) else each for each in held]

    def newest(self, channels: Collection[str], until: int, count: int) -> list[Entry]:
        """The last `count` entries on any of these channels, up to the sequence `until`; newest first."""
        queues = self._queues(channels)
        if len(queues) > FEW:
            lately = [entry for entry in islice(reversed(self.entries), LATELY) if entry.sequence <= until]
            found = list(islice((entry for entry in lately if _is_on(entry, channels)), count))
            if len(found) == count:
                return found
        merged = heapq.merge(*map(reversed, queues), key=lambda entry: -entry.sequence)
        each_once = (entry for entry, _ in groupby(merged))  # one on several channels comes several times
        return list(islice(dropwhile(lambda entry: entry.sequence > until, each_once), count))

    def sequence_at(self, at: float) -> int:
        """The sequence of the last entry that had come by `at`, or of what was there before all that are kept."""
        place = bisect_right(self.entries, at, key=lambda entry: entry.latest)
        return self.entries[place].sequence - 1 if place < len(self.entries) else self.last_sequence

    def select(self, channels: Collection[str], wanted: Callable[[Entry], bool]) -> list[Entry]:
        """The entries on any of these channels, back to the last one that is wanted; oldest first.

        `wanted` must hold for all entries that are newer than one for which it holds. What it costs goes
        with the number of channels and of entries found, not with the size of the history.
        """
        queues = self._queues(channels)
        if len(queues) == 1:
            return list(takewhile(wanted, reversed(queues[0])))[::-1]
        if sum(map(len, queues)) > len(self.entries):  # most are on several of them
            return [entry for entry in takewhile(wanted, reversed(self.entries)) if _is_on(entry, channels)][
                ::-1
            ]
        found = {entry.sequence: entry for queue in queues for entry in takewhile(wanted, reversed(queue))}
        return [found[sequence] for sequence in sorted(found)]

    def age(self, now: float) -> float | None:
        """Seconds since the oldest entry came; None where there is none."""
        return now - self.entries[0].at if self.entries else None


def _is_on(entry: Entry, channels: Collection[str]) -> bool:
    return any(map(channels.__contains__, entry.message.channels))


class HistoryStore:
    """All histories of a node: numbers the messages, and keeps them together within their bounds."""

    def __init__(self, max_cost: int, max_messages: int = MAX_MESSAGES, max_age: float = MAX_AGE) -> None:
        self.max_cost = max_cost
        self.cost = 0
        self.sequence = 0
        self._max_messages = max_messages
        self._max_age = max_age
        self.overflowed = 0  # messages that were forgotten before their time, for want of room
        self._entries: deque[Entry] = deque()  # of all histories; some have been dropped
        self._dropped = 0

    def append(self, history: InstanceHistory, message: Message, now: float) -> Entry:
        """Keep a message in a history of this archive; what no longer fits goes, oldest first."""
        self.sequence += 1
        entry = Entry(self.sequence, now, message, history)
        history.append(entry)
        self._entries.append(entry)
        self.cost += message.cost
        if len(history) > self._max_messages:
            self._drop_oldest(history)
            self.overflowed += 1
            self._tidy()
        if self.cost > self.max_cost:
            self.expire(now)
        return entry

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """All that is kept and later than a sequence, in order; nothing may be appended or dropped meanwhile."""
        place = bisect_right(self._entries, after, key=lambda entry: entry.sequence)
        return (entry for entry in islice(self._entries, place, None) if entry.history is not None)

    def drop_before(self, history: InstanceHistory, at: float) -> None:
        """Forget the oldest messages of a history up to the first that is not older than this."""
        while history.entries and history.entries[0].at < at:
            self._drop_oldest(history)
        self._tidy()

    def _drop_oldest(self, history: InstanceHistory) -> None:
        self.cost -= history.drop_oldest().message.cost
        self._dropped += 1

    def expire(self, now: float) -> None:
        """Forget what is too old or beyond the bound in bytes."""
        horizon = now - self._max_age
        entries = self._entries
        while entries:
            oldest = entries[0]
            if oldest.history is not None and oldest.at >= horizon:
                if self.cost <= self.max_cost:
                    break
                self.overflowed += 1
            self._drop(entries.popleft())

    def _tidy(self) -> None:
        """Let go of what histories have dropped, once it is a thousand entries and the greater part."""
        if self._dropped > SLACK and self._dropped * 2 > len(self._entries):
            self._entries = deque(entry for entry in self._entries if entry.history is not None)
            self._dropped = 0

    def _drop(self, entry: Entry) -> None:
        if entry.history is None:
            self._dropped -= 1
            return
        self.cost -= entry.message.cost
        entry.history.drop_oldest()
