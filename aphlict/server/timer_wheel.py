"""A timer wheel: deadlines of very many connections, checked by one coarse timer."""

import math
from abc import ABC, abstractmethod
from collections import deque

TICK = 0.25  # seconds between two sweeps: no deadline is handled later than this
MAX_BATCH = 8  # deadlines handled in one sweep: the end of a pause may cost a millisecond or two
GROUP_SIZE = 16  # entries of one list, which `cancel` searches


class HasDeadline(ABC):
    """An object with one deadline at a time. `group` belongs to TimerWheel."""

    __slots__ = ("group",)

    def __init__(self) -> None:
        self.group: list[HasDeadline] | None = None  # the list that holds it

    @abstractmethod
    def on_deadline(self, now: float, /) -> float | None:
        """Handle the deadline. Returns the next one, or None for none; one that `add` has set meanwhile takes
        precedence."""


class TimerWheel:
    """Buckets of objects, one for each tick.

    A deadline is rarely moved: when it has come, the object decides what is due, and when to be called again. So a
    message that is received costs nothing here. Cancel the deadline of an object that is no longer needed: the wheel
    would keep it until then.
    """

    def __init__(self, now: float) -> None:
        self.now = now  # seconds, as of the last sweep: the time to within a tick
        self._buckets: dict[int, list[list[HasDeadline]]] = {}
        self._swept = int(now / TICK)
        self._due: deque[list[HasDeadline]] = deque()

    def add(self, timed: HasDeadline, when: float) -> None:
        """Call `on_deadline` at `when`. Replaces the deadline that the object had before."""
        self.cancel(timed)
        tick = max(math.ceil(when / TICK), self._swept + 1)
        groups = self._buckets.get(tick)
        if groups is None:
            groups = self._buckets[tick] = [[]]
        elif len(groups[-1]) >= GROUP_SIZE:
            groups.append([])
        groups[-1].append(timed)
        timed.group = groups[-1]

    def replace(self, timed: HasDeadline, successor: HasDeadline) -> None:
        """Pass the deadline of an object, if it has one, to another object that has none."""
        if timed.group is not None:
            timed.group[timed.group.index(timed)] = successor
            successor.group, timed.group = timed.group, None

    def cancel(self, timed: HasDeadline) -> None:
        """Remove the deadline of an object, if it has one."""
        # To search a small list is slower than an index in each object would be, which takes 32 bytes a connection.
        if timed.group is not None:
            timed.group.remove(timed)
            timed.group = None

    def sweep(self, now: float) -> bool:
        """Handle some of the deadlines that have come. Call it every tick, and again soon while it returns True."""
        self.now = now
        tick = int(now / TICK)
        while self._swept < tick:
            self._swept += 1
            self._due.extend(self._buckets.pop(self._swept, ()))
        for _ in range(MAX_BATCH):
            timed = self._next_due()
            if timed is None:
                return False
            next_deadline = timed.on_deadline(now)
            if next_deadline is not None and timed.group is None:
                self.add(timed, next_deadline)
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
