"""Lines that repeat are counted."""

import logging
from itertools import pairwise

from aphlict.process.logs import MAX_SIMILAR, MAX_TRACKED, MAX_WINDOW, MIN_WINDOW, LogDeduplicator
from tests.support.memory import kept

ERROR = logging.ERROR


def test_the_first_is_written_and_the_others_are_counted() -> None:
    repeats = LogDeduplicator()
    assert [repeats.allow("full", ERROR, "full", now) for now in range(4813)] == [True] + [False] * 4812
    assert list(repeats.flush(MIN_WINDOW)) == [(ERROR, "full … 4,812 more times")]


def test_the_count_waits_for_the_window() -> None:
    repeats = LogDeduplicator()
    repeats.allow("full", ERROR, "full", 0)
    repeats.allow("full", ERROR, "full", 1)
    assert list(repeats.flush(MIN_WINDOW - 0.1)) == []
    assert list(repeats.flush(1, everything=True)) == [(ERROR, "full … 1 more time")]


def test_the_window_of_repeated_lines_grows() -> None:
    repeats = LogDeduplicator()
    reported = []
    for second in range(7200):
        repeats.allow("full", ERROR, "full", second)
        reported += [second for _ in repeats.flush(second)]
    pauses = [later - earlier for earlier, later in pairwise(reported)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_WINDOW


def test_a_line_is_written_again_after_a_pause() -> None:
    repeats = LogDeduplicator()
    repeats.allow("full", ERROR, "full", 0)
    assert list(repeats.flush(MIN_WINDOW)) == []
    assert repeats.allow("full", ERROR, "full", MIN_WINDOW + 1)


def test_lines_of_one_statement_are_counted() -> None:
    repeats = LogDeduplicator()
    admitted = [repeats.allow("[%d] odd", ERROR, f"[{n}] odd", 0) for n in range(1000)]
    assert admitted.count(True) == MAX_SIMILAR
    assert (ERROR, f"… {1000 - MAX_SIMILAR:,} more lines like: [999] odd") in list(repeats.flush(MIN_WINDOW))


def test_different_lines_are_independent() -> None:
    repeats = LogDeduplicator()
    assert repeats.allow("a", ERROR, "a", 0)
    assert repeats.allow("b", ERROR, "b", 0)
    assert not repeats.allow("a", ERROR, "a", 0)


def test_memory_is_bounded() -> None:
    repeats = LogDeduplicator()
    for n in range(10 * MAX_TRACKED):
        repeats.allow(f"template {n}", ERROR, f"text {n}", 0)
    assert sum(each.startswith("text") for each in kept(repeats, str)) <= MAX_TRACKED


def test_very_many_lines_that_each_come_twice_are_counted_too() -> None:
    repeats = LogDeduplicator()
    admitted = [repeats.allow("[%d] odd", ERROR, f"[{n // 2}] odd", 0) for n in range(10 * MAX_TRACKED)]
    assert admitted.count(True) == MAX_SIMILAR
    assert len(list(repeats.flush(MIN_WINDOW))) <= MAX_SIMILAR + 1


def test_counts_of_statements_are_evicted_last() -> None:
    repeats = LogDeduplicator()
    for n in range(MAX_SIMILAR + 1):
        repeats.allow("[%d] odd", ERROR, f"[{n}] odd", 0)
    for n in range(MAX_TRACKED):
        repeats.allow(f"template {n // 2}", ERROR, f"text {n}", 0)
        repeats.allow(f"template {n // 2}", ERROR, f"text {n}", 0)
    assert not repeats.allow("[%d] odd", ERROR, "[9999] odd", 0)
