"""Repeated lines of the log are counted."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

from aphlict.log_events import Times
from aphlict.process.log_line import LogLine

MIN_WINDOW = 10.0  # seconds until the first count of a repeated line
MAX_WINDOW = 600.0  # seconds between two counts of a line that is repeated for hours
MAX_SIMILAR = 20  # lines of one statement in a window; further ones are counted
MAX_TRACKED = 256  # different lines


@dataclass
class _Count:
    line: LogLine  # the last one
    until: float
    window: float
    written: int = 0
    suppressed: int = 0


class LogDeduplicator:
    """Decides which lines are written, and counts the others. Does not read the clock.

    In each window, an identical line is written once; of lines of one statement that differ in their arguments, the
    first MAX_SIMILAR are written. `flush` returns the counts.
    """

    def __init__(self) -> None:
        # (level, text) of a line, or the template of a statement
        self._counts: dict[Hashable, _Count] = {}

    def allow(self, line: LogLine, now: float) -> bool:
        """Whether to write this line; otherwise it is counted."""
        key = (line.level, line.text)
        same = self._counts.get(key)
        if same is not None:
            same.suppressed += 1
            return False
        similar = self._entry(line.template, line, now)
        similar.written += 1
        similar.line = line
        if similar.written > MAX_SIMILAR:
            similar.suppressed += 1
            return False
        self._entry(key, line, now)
        return True

    def flush(self, now: float, *, everything: bool = False) -> Iterator[LogLine]:
        """Yield a line for each count whose window has passed, and begin its next, longer window."""
        for key, count in list(self._counts.items()):
            if now < count.until and not everything:
                continue
            if count.suppressed == 0:
                del self._counts[key]
                continue
            yield self._describe(key, count)
            count.window = min(count.window * 2, MAX_WINDOW)
            count.until = now + count.window
            count.suppressed = 0
            count.written = 1

    def _entry(self, key: Hashable, line: LogLine, now: float) -> _Count:
        if key not in self._counts:
            if len(self._counts) >= MAX_TRACKED:
                self._evict()
            self._counts[key] = _Count(line, now + MIN_WINDOW, MIN_WINDOW)
        return self._counts[key]

    def _evict(self) -> None:
        """Evict an entry: that of a line before that of a statement, and one without a count first."""
        del self._counts[
            min(self._counts, key=lambda key: (not isinstance(key, tuple), self._counts[key].suppressed > 0))
        ]

    @staticmethod
    def _describe(key: Hashable, count: _Count) -> LogLine:
        line, more = count.line, count.suppressed
        if isinstance(key, tuple):
            text = f"{line.text} … {Times(more)}"
            return replace(line, text=text, data={**line.data, "more_times": more})
        text = f"… {more:,} more line{'s' * (more != 1)} like: {line.text}"
        return replace(line, text=text, data={**line.data, "more_lines": more})
