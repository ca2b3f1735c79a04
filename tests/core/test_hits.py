"""How limits tell that they were hit: always in the figures, seldom in the log."""

import pytest

from aphlict.core.stats import MOST_TOLD, LimitCounters


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged since the last time."""
    told = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return told


def test_once_for_each_limit_and_address(caplog: pytest.LogCaptureFixture) -> None:
    hits = LimitCounters()
    for _ in range(4813):
        hits.add("limits.request_head", "10.0.0.1")
    hits.add("limits.request_head", "10.0.0.2")
    hits.add("limits.name", "10.0.0.1")
    assert lines(caplog) == [
        "limits.request_head was hit by 10.0.0.1",
        "limits.request_head was hit by 10.0.0.2",
        "limits.name was hit by 10.0.0.1",
    ]
    hits.sweep()
    assert lines(caplog) == ["limits.request_head was hit by 10.0.0.1 4,812 more times"]
    assert hits.counts == {"limits.request_head": 4814, "limits.name": 1}


def test_a_minute_later_it_is_news_again(caplog: pytest.LogCaptureFixture) -> None:
    hits = LimitCounters()
    hits.add("limits.request_head", "10.0.0.1")
    hits.sweep()
    hits.add("limits.request_head", "10.0.0.1")
    assert lines(caplog) == ["limits.request_head was hit by 10.0.0.1"] * 2


def test_a_million_addresses_fill_neither_log_nor_memory(caplog: pytest.LogCaptureFixture) -> None:
    hits = LimitCounters()
    for number in range(MOST_TOLD + 500):
        hits.add("limits.request_head", f"address {number}")
    assert len(lines(caplog)) == MOST_TOLD
    hits.add("admin.secret", "10.0.0.1")
    assert lines(caplog) == ["admin.secret was hit by 10.0.0.1"]
    hits.sweep()
    assert lines(caplog) == ["limits.request_head was hit 500 more times, by yet other addresses"]


def test_what_is_no_news_is_counted_only(caplog: pytest.LogCaptureFixture) -> None:
    hits = LimitCounters()
    hits.count("limits.idle")
    assert hits.counts == {"limits.idle": 1}
    assert lines(caplog) == []
