"""Deadlines of very many connections, swept by one coarse timer."""

import math
from collections import deque

TICK = 0.25  # seconds; a deadline passes unnoticed for no longer than this
BATCH = 8  # looked at in one sweep: one that reads on after a pause may cost a millisecond or two
GROUP = 64  # entries of one list, which is what `cancel` has to search


class HasDeadline:
    """Something with a deadline, one at a time. `group` belongs to Deadlines."""

    __slots__ = ("group",)

    def __init__(self) -> None:
        self.group: list[HasDeadline] | None = None  # the list of Deadlines that holds it

    def on_deadline(self, now: float, /) -> float | None:
        """Do what is due. Returns the time of the next deadline, or None for no further one; a deadline that was
        added meanwhile counts instead."""
        raise NotImplementedError


class TimerWheel:
    """Buckets of things to look at again, one for each tick.

    A deadline is rarely moved: when it comes, the thing itself knows what is due, and when to ask again. So a
    message that arrives costs nothing here. What is over has to be cancelled, or it is kept until its deadline.
    """

    def __init__(self, now: float) -> None:
        self.now = now  # seconds, as of the last sweep: what the time is to within a tick
        self._buckets: dict[int, list[list[HasDeadline]]] = {}
        self._swept = int(now / TICK)
        self._due: deque[list[HasDeadline]] = deque()

    def add(self, timed: HasDeadline, when: float) -> None:
        """Call `on_deadline` once `when` has come, in the place of the deadline that it had before."""
        self.cancel(timed)
        tick = max(math.ceil(when / TICK), self._swept + 1)
        groups = self._buckets.get(tick)
        if groups is None:
            groups = self._buckets[tick] = [[]]
        elif len(groups[-1]) >= GROUP:
            groups.append([])
        groups[-1].append(timed)
        timed.group = groups[-1]

    def replace(self, timed: HasDeadline, successor: HasDeadline) -> None:
        """Pass the deadline of an object, if it has one, to another object that has none."""
        if timed.group is not None:
            timed.group[timed.group.index(timed)] = successor
            successor.group, timed.group = timed.group, None

    def cancel(self, timed: HasDeadline) -> None:
        """Forget the deadline of something, if it has one. An index in each entry would be faster to find, and take
        32 bytes of every connection; a group is small."""
        if timed.group is not None:
            timed.group.remove(timed)
            timed.group = None

    def sweep(self, now: float) -> bool:
        """Look at some of those whose deadline has come. To be called every tick, and soon again if it returns True:
        there are more."""
        self.now = now
        tick = int(now / TICK)
        while self._swept < tick:
            self._swept += 1
            self._due.extend(self._buckets.pop(self._swept, ()))
        for _ in range(BATCH):
            timed = self._next_due()
            if timed is None:
                return False
            again = timed.on_deadline(now)
            if again is not None and timed.group is None:
                self.add(timed, again)
        return any(self._due)

    def _next_due(self) -> HasDeadline | None:
        due = self._due
        while due and not due[0]:
            due.popleft()
        if not due:
            return None
        timed = due[0].pop()
        timed.group = None
        return timed
