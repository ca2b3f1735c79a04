"""Counting what says the same again, instead of saying it."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

WINDOW = 10.0  # seconds until the first count is told
LONGEST = 600.0  # seconds: what goes on for hours is told this often
ALIKE = 20  # lines in a window that differ only in their figures; more are counted
REMEMBERED = 256  # different lines


@dataclass
class _Seen:
    level: int
    text: str
    until: float
    window: float
    times: int = 0
    more: int = 0


class Repeats:
    """Says which lines to write; time is an argument.

    Each identical line is written once in a window, and of lines that one statement makes with changing
    figures the first 20; `tell` gives the lines that count the others.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._seen: dict[Hashable, _Seen] = {}

    def admits(self, template: str, level: int, text: str, now: float) -> bool:
        """Whether to write this line; it is counted otherwise."""
        same = self._seen.get((level, text))
        if same is not None:
            same.more += 1
            return False
        alike = self._entry(template, level, text, now)
        alike.times += 1
        alike.text = text
        if alike.times > ALIKE:
            alike.more += 1
            return False
        self._entry((level, text), level, text, now)
        return True

    def tell(self, now: float, *, all_of_them: bool = False) -> Iterator[tuple[int, str]]:
        """Give (level, line) for each count whose window has passed, and begin its next, longer window."""
        for key, seen in list(self._seen.items()):
            if now < seen.until and not all_of_them:
                continue
            if seen.more == 0:
                del self._seen[key]
                continue
            yield seen.level, self._count(key, seen)
            seen.window = min(seen.window * 2, LONGEST)
            seen.until = now + seen.window
            seen.more = 0
            seen.times = 1

    def _entry(self, key: Hashable, level: int, text: str, now: float) -> _Seen:
        if key not in self._seen:
            if len(self._seen) >= REMEMBERED:
                self._forget_one()
            self._seen[key] = _Seen(level, text, now + WINDOW, WINDOW)
        return self._seen[key]

    def _forget_one(self) -> None:
        """Make room: a single line rather than what counts all that are alike, and what has counted nothing first."""
        del self._seen[
            min(self._seen, key=lambda key: (not isinstance(key, tuple), self._seen[key].more > 0))
        ]

    @staticmethod
    def _count(key: Hashable, seen: _Seen) -> str:
        if isinstance(key, tuple):
            return f"{seen.text} … {seen.more:,} more time{'s' * (seen.more != 1)}"
        return f"… {seen.more:,} more line{'s' * (seen.more != 1)} like: {seen.text}"
