"""Counters of limits, and their lines in the log."""

import pytest

from aphlict.core.stats import MAX_LINES, LimitCounters


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines logged since the last call."""
    reported = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return reported


def test_one_line_for_each_limit_and_address(caplog: pytest.LogCaptureFixture) -> None:
    hits = LimitCounters()
    for _ in range(4813):
        hits.add("limits.request_head", "10.0.0.1")
    hits.add("limits.request_head", "10.0.0.2")
    hits.add("limits.name", "10.0.0.1")
    assert lines(caplog) == [
        "limits.request_head reached by 10.0.0.1",
        "limits.request_head reached by 10.0.0.2",
        "limits.name reached by 10.0.0.1",
    ]
    hits.sweep()
    assert lines(caplog) == ["limits.request_head reached by 10.0.0.1 4,812 more times"]
    assert hits.counts == {"limits.request_head": 4814, "limits.name": 1}


def test_a_line_is_logged_again_after_the_sweep(caplog: pytest.LogCaptureFixture) -> None:
    hits = LimitCounters()
    hits.add("limits.request_head", "10.0.0.1")
    hits.sweep()
    hits.add("limits.request_head", "10.0.0.1")
    assert lines(caplog) == ["limits.request_head reached by 10.0.0.1"] * 2


def test_the_lines_and_entries_of_a_limit_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    hits = LimitCounters()
    for number in range(MAX_LINES + 500):
        hits.add("limits.request_head", f"address {number}")
    assert len(lines(caplog)) == MAX_LINES
    hits.add("admin.secret", "10.0.0.1")
    assert lines(caplog) == ["admin.secret refused 10.0.0.1"]
    hits.sweep()
    assert lines(caplog) == ["limits.request_head reached by other addresses 500 more times"]


def test_count_does_not_log(caplog: pytest.LogCaptureFixture) -> None:
    hits = LimitCounters()
    hits.count("limits.idle")
    assert hits.counts == {"limits.idle": 1}
    assert lines(caplog) == []
