"""The report of idle_connections, and its exit status."""

import pytest

from benchmarks.idle_connections import Outcome, Requests, Sample, report, thirds


def outcome(deliveries: int = 400, closed_early: int = 0) -> Outcome:
    """Two load generators with 100 clients each, two messages to all, and a server that gets slower and larger."""
    latency = {"p50_first_third": 10.0, "p50_last_third": 20.0, "max": 90.0}
    result = {"opened": 100, "deliveries": 200, "closed_early": 0, "latency_ms": latency}
    other = result | {"deliveries": deliveries - 200, "closed_early": closed_early}
    samples = [Sample(5.0 * n, 200, 30.0 + n, 1.0 + n / 10, 500.0, 2.0 + n / 10) for n in range(13)]
    requests = Requests([3.0] * 98 + [4.0, 5.0], 2.0)
    return Outcome(samples, [result, other], 2, 498.0, requests, requests)


def test_the_first_and_the_last_third_stand_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    report(outcome())
    assert capsys.readouterr().out.splitlines() == [
        "200 clients, 1 min, 2 messages to all of them",
        "deliveries 400 of 400; connections lost 0",
        "delivered after 10 ms in the first third, 20 ms in the last (medians)",
        "delivered to the last client after 90 ms",
        "status answered within 1.1 ms in the first third, 2.0 ms in the last (medians)",
        "status answered within 2.2 ms always",
        "metrics answered within 2.6 ms (median), 3.2 ms always",
        "metrics answered between messages within 3.0 ms (median), 5.0 ms (99 %), 5.0 ms always; 2.0 ms of CPU",
        "trace answered within 3.0 ms (median), 5.0 ms (99 %), 5.0 ms always; 2.0 ms of CPU",
        "memory 32.5 MiB in the first third, 40.5 MiB in the last (medians): 207.36 KB each",
        "Slab of the machine grew by 2 MiB: 5.1 KB for each socket",
    ]


def test_the_thirds_of_few_values() -> None:
    assert thirds([1.0]) == (1.0, 1.0)
    assert thirds([1.0, 2.0, 5.0, 7.0]) == (1.0, 7.0)


def test_a_lost_or_repeated_delivery_fails_the_run() -> None:
    assert outcome().is_complete
    assert not outcome(deliveries=399).is_complete
    assert not outcome(deliveries=401).is_complete
    assert not outcome(closed_early=1).is_complete
