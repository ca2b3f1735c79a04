"""Deadlines of very many connections, swept by one coarse timer."""

import math
from collections import deque
from typing import Protocol

TICK = 0.25  # seconds; a deadline passes unnoticed for no longer than this
BATCH = 8  # looked at in one sweep: one that reads on after a pause may cost a millisecond or two


class Timed(Protocol):
    """What has a deadline."""

    def on_deadline(self, now: float, /) -> float | None:
        """Do what is due. Returns the time of the next deadline, or None for no further one."""


class Deadlines:
    """Buckets of things to look at again, one for each tick.

    A deadline is never moved: when it comes, the thing itself knows what is due, and when to ask again. So a
    message that arrives costs nothing here.
    """

    def __init__(self, now: float) -> None:
        self.now = now  # seconds, as of the last sweep: what the time is to within a tick
        self._buckets: dict[int, list[Timed]] = {}
        self._swept = int(now / TICK)
        self._due: deque[Timed] = deque()

    def add(self, timed: Timed, when: float) -> None:
        """Call `on_deadline` once `when` has come."""
        tick = max(math.ceil(when / TICK), self._swept + 1)
        self._buckets.setdefault(tick, []).append(timed)

    def sweep(self, now: float) -> bool:
        """Look at some of those whose deadline has come. To be called every tick, and soon again if it returns True:
        there are more."""
        self.now = now
        tick = int(now / TICK)
        while self._swept < tick:
            self._swept += 1
            self._due.extend(self._buckets.pop(self._swept, ()))
        for _ in range(min(BATCH, len(self._due))):
            timed = self._due.popleft()
            again = timed.on_deadline(now)
            if again is not None:
                self.add(timed, again)
        return bool(self._due)
