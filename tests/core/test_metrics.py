"""The table of metrics, its documentation, and the sums over processes."""

import re
from pathlib import Path

import pytest

from aphlict.core.metrics import (
    DELIVERY,
    MAX_PROCESSES,
    METRICS,
    Histogram,
    Metric,
    ProcessTotals,
    Samples,
    client_samples,
    merge,
    node_samples,
    single,
)
from tests.support.hub import HubHarness

PAGE = (Path(__file__).resolve().parents[2] / "docs/monitoring.md").read_text()
UNITS = ("seconds", "bytes", "ratio")


def documented() -> dict[str, list[str]]:
    """The cells of the manual's tables by metric."""
    part = PAGE.split("\n## Metrics\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in part.splitlines()
        if line.startswith(("| `aphlict_", "| `process_"))
    ]
    return {name.strip("`"): rest for name, *rest in rows}


def labels(metric: Metric) -> str:
    """The second cell of its row."""
    if metric.kind == "histogram":
        return "buckets " + ", ".join(f"{bound:g}" for bound in metric.buckets)
    if (
        metric.values
        and metric.label
        and metric.name not in ("aphlict_limits_reached", "aphlict_requests_refused")
    ):
        return f"`{metric.label}`: " + ", ".join(metric.values)
    return f"`{metric.label}`" if metric.label else ""


def test_every_metric_is_documented_and_no_other() -> None:
    assert sorted(documented()) == sorted(["aphlict_build_info", *(metric.title for metric in METRICS)])


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.title)
def test_kind_and_labels_are_documented(metric: Metric) -> None:
    kind, label, meaning = documented()[metric.title]
    assert (kind, label) == (metric.kind, labels(metric))
    assert len(meaning) > 10


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.title)
def test_names_follow_the_conventions(metric: Metric) -> None:
    assert re.fullmatch("(aphlict|process)_[a-z_]+", metric.title)
    assert (metric.kind == "counter") == metric.title.endswith("_total")
    for unit in UNITS:
        assert unit not in metric.name.split("_") or metric.name.endswith(unit), "the unit is the last word"
    assert metric.label not in ("channel", "user", "address", "instance")


def test_a_histogram_counts_each_observation_once() -> None:
    histogram = Histogram(DELIVERY)
    for seconds in (0.0, 0.001, 0.0011, 0.5, 7.0):
        histogram.observe(seconds)
    assert histogram.samples() == {
        DELIVERY.title: {"0.001": 2, "0.01": 1, "0.1": 0, "1.0": 1, "+Inf": 1, "sum": pytest.approx(7.5021)}
    }


def test_processes_are_added_up() -> None:
    one = single(
        {"aphlict_subscriptions": 1, "aphlict_descriptors_used_ratio": 0.5, "process_start_time_seconds": 9}
    )
    other = single(
        {"aphlict_subscriptions": 2, "aphlict_descriptors_used_ratio": 0.4, "process_start_time_seconds": 7}
    )
    assert merge([one, other]) == single(
        {"aphlict_subscriptions": 3, "aphlict_descriptors_used_ratio": 0.5, "process_start_time_seconds": 7}
    )
    assert merge([one, {"aphlict_ready": {"": 1}}])["aphlict_subscriptions"] == {"": 1}


def figures(connections: int, deliveries: int) -> Samples:
    return single({"aphlict_subscriptions": connections, "aphlict_deliveries_total": deliveries})


def test_counters_never_decrease_when_a_process_is_gone() -> None:
    totals = ProcessTotals()
    totals.update("one", figures(3, 100))
    totals.update("other", figures(4, 50))
    assert totals.total({"one", "other"}) == figures(7, 150)
    assert totals.total({"other"}) == single({"aphlict_subscriptions": 4, "aphlict_deliveries_total": 150})
    totals.update("one", figures(3, 101))
    assert totals.total({"one", "other"}) == figures(7, 151)


def test_processes_that_are_gone_take_a_bounded_memory() -> None:
    totals = ProcessTotals()
    for number in range(MAX_PROCESSES + 10):
        totals.update(str(number), figures(1, 2))
    assert totals.total({"0"}) == figures(1, 2 * (MAX_PROCESSES + 10))
    assert totals.total({"0"}) == figures(1, 2 * (MAX_PROCESSES + 10))
    assert len(totals._last) == MAX_PROCESSES


def test_what_a_hub_counts() -> None:
    harness = HubHarness()
    fake, subscriber = harness.join("a", "b")
    harness.publish("1", ("a", "b"))
    harness.publish("1", ("a", "b"))
    harness.publish("2", ("c",))
    harness.replay_age(subscriber)
    client, node = client_samples(harness.hub), node_samples(harness.hub)
    assert client["aphlict_subscriptions"] == {"": 2}
    assert client["aphlict_deliveries_total"] == {"": 2}
    assert client["aphlict_delivered_bytes_total"] == {"": 2 * len('{"uniqueID":"1"')}
    assert client["aphlict_replays_total"] == {"recovered": 0, "gap": 0, "age": 1}
    assert node["aphlict_messages_total"] == {"": 3}
    assert node["aphlict_duplicates_total"] == {"": 1}
    assert node["aphlict_history_messages"] == {"": 2}
    assert len(fake.ids) == 2
    harness.hub.leave(subscriber)
    assert client_samples(harness.hub)["aphlict_subscriptions"] == {"": 0}


def test_the_outcome_of_replays() -> None:
    harness = HubHarness()
    _, subscriber = harness.join("a")
    token = harness.hub.resume_token(subscriber, harness.now)
    assert token is not None
    assert harness.replay_after(subscriber, token).recovered
    assert not harness.replay_after(subscriber, "never heard of").recovered
    assert harness.hub.counters.replays == {"recovered": 1, "gap": 1, "age": 0}


def test_each_message_with_receivers_is_timed_once() -> None:
    harness = HubHarness()
    times: list[float] = []
    harness.hub.fan_out.on_delivered = lambda _message, at: times.append(at)
    harness.publish("for nobody")
    for _ in range(600):
        harness.join("many")
    harness.join("few")
    harness.publish("1", ("few",))
    assert times == [1000.0]
    harness.publish("2", ("many", "few"))
    harness.publish("3", ("few",))
    harness.now = 1001.0
    assert times == [1000.0]
    harness.finish()
    assert times == [1000.0] * 3
