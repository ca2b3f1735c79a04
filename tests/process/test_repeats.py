"""Lines that repeat are counted."""

import logging
from collections.abc import Iterable
from itertools import pairwise

from aphlict.process.log_line import LogLine
from aphlict.process.repeats import MAX_SIMILAR, MAX_TRACKED, MAX_WINDOW, MIN_WINDOW, LogDeduplicator
from tests.support.memory import kept


def line(template: str, text: str) -> LogLine:
    """A line of a statement."""
    return LogLine(logging.ERROR, text, template, "odd_event", {"size": 5})


def texts(lines: Iterable[LogLine]) -> list[str]:
    return [each.text for each in lines]


def test_the_first_is_written_and_the_others_are_counted() -> None:
    repeats = LogDeduplicator()
    assert [repeats.allow(line("full", "full"), now) for now in range(4813)] == [True] + [False] * 4812
    [counted] = repeats.flush(MIN_WINDOW)
    assert counted.text == "full … 4,812 more times"
    assert (counted.event, counted.data) == ("odd_event", {"size": 5, "more_times": 4812})


def test_the_count_waits_for_the_window() -> None:
    repeats = LogDeduplicator()
    repeats.allow(line("full", "full"), 0)
    repeats.allow(line("full", "full"), 1)
    assert list(repeats.flush(MIN_WINDOW - 0.1)) == []
    assert texts(repeats.flush(1, everything=True)) == ["full … 1 more time"]


def test_the_window_of_repeated_lines_grows() -> None:
    repeats = LogDeduplicator()
    reported = []
    for second in range(7200):
        repeats.allow(line("full", "full"), second)
        reported += [second for _ in repeats.flush(second)]
    pauses = [later - earlier for earlier, later in pairwise(reported)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_WINDOW


def test_a_line_is_written_again_after_a_pause() -> None:
    repeats = LogDeduplicator()
    repeats.allow(line("full", "full"), 0)
    assert list(repeats.flush(MIN_WINDOW)) == []
    assert repeats.allow(line("full", "full"), MIN_WINDOW + 1)


def test_lines_of_one_statement_are_counted() -> None:
    repeats = LogDeduplicator()
    admitted = [repeats.allow(line("[%d] odd", f"[{n}] odd"), 0) for n in range(1000)]
    assert admitted.count(True) == MAX_SIMILAR
    more = 1000 - MAX_SIMILAR
    counted = next(each for each in repeats.flush(MIN_WINDOW) if "more_lines" in each.data)
    assert counted.text == f"… {more:,} more lines like: [999] odd"
    assert (counted.event, counted.data) == ("odd_event", {"size": 5, "more_lines": more})


def test_different_lines_are_independent() -> None:
    repeats = LogDeduplicator()
    assert repeats.allow(line("a", "a"), 0)
    assert repeats.allow(line("b", "b"), 0)
    assert not repeats.allow(line("a", "a"), 0)


def test_memory_is_bounded() -> None:
    repeats = LogDeduplicator()
    for n in range(10 * MAX_TRACKED):
        repeats.allow(line(f"template {n}", f"text {n}"), 0)
    assert sum(each.startswith("text") for each in kept(repeats, str)) <= MAX_TRACKED


def test_very_many_lines_that_each_come_twice_are_counted_too() -> None:
    repeats = LogDeduplicator()
    admitted = [repeats.allow(line("[%d] odd", f"[{n // 2}] odd"), 0) for n in range(10 * MAX_TRACKED)]
    assert admitted.count(True) == MAX_SIMILAR
    assert len(list(repeats.flush(MIN_WINDOW))) <= MAX_SIMILAR + 1


def test_counts_of_statements_are_evicted_last() -> None:
    repeats = LogDeduplicator()
    for n in range(MAX_SIMILAR + 1):
        repeats.allow(line("[%d] odd", f"[{n}] odd"), 0)
    for n in range(MAX_TRACKED):
        repeats.allow(line(f"template {n // 2}", f"text {n}"), 0)
        repeats.allow(line(f"template {n // 2}", f"text {n}"), 0)
    assert not repeats.allow(line("[%d] odd", "[9999] odd"), 0)
