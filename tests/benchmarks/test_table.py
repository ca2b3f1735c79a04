"""The table judges each kind of target: a figure on either side of it, and what is not judged."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import workloads
from benchmarks.servers import Target
from benchmarks.table import add, compare, cpu_with, describe
from benchmarks.workloads import Figure, cpu_per_publish


def judge(*values: float, floor: float | None = None, judged: bool = True, **kind: Any) -> str:
    """The line of a figure that had these values, without its name."""
    figures = [Figure("F", value, "µs")._replace(**kind) for value in values]
    lowest = [Figure("F", floor, "µs")] if floor is not None else None
    return describe("Aphlict", figures, lowest, judged=judged).removeprefix("Aphlict").strip()


def test_the_median_and_the_range() -> None:
    assert judge(3, 1.5, 1000).split() == ["F", "3.00", "µs", "(1.50", "to", "1,000.00)"]


def test_an_absolute_target_is_for_the_median() -> None:
    assert judge(1, 12, 99, target=12).endswith("  meets 12")
    assert judge(1, 12.1, 12.2, target=12).endswith("  MISSES 12")


def test_what_may_never_happen_is_judged_by_the_worst_run() -> None:
    assert judge(0, 0, 0, target=0, always=True).endswith("  meets 0")
    assert judge(0, 0, 1, target=0, always=True).endswith("  MISSES 0")


def test_a_ratio_to_the_floor() -> None:
    assert judge(6, floor=5, beside_floor=True, ratio=1.2).endswith("  1.20 x the floor  meets 1.2")
    assert judge(6.5, floor=5, beside_floor=True, ratio=1.2).endswith("  1.30 x the floor  MISSES 1.2")


def test_a_ratio_without_a_target_is_told() -> None:
    assert judge(6, floor=5, beside_floor=True).endswith(")  1.20 x the floor")


def test_without_a_floor_there_is_no_ratio() -> None:
    for line in (judge(6, ratio=1.2, beside_floor=True), judge(6, floor=0, ratio=1.2, beside_floor=True)):
        assert line.endswith(")")


def test_a_figure_that_the_floor_has_too_need_not_be_compared() -> None:
    assert judge(0.5, floor=0.1, target=1).endswith(")  meets 1")


def test_a_try_and_the_other_servers_are_not_judged() -> None:
    assert "M" not in judge(13, target=12, judged=False).upper()
    assert judge(6.5, floor=5, beside_floor=True, ratio=1.2, judged=False).endswith("  1.30 x the floor")


def compared(few: float, many: float, one: float, two: float) -> dict[str, Figure]:
    """What a run with these figures says of two of them beside each other."""
    names = cpu_per_publish(100), cpu_per_publish(10_000), cpu_with(1), cpu_with(2)
    values: dict[str, list[Figure]] = {}
    add(values, [Figure(name, 1, "µs") for name in names])  # an earlier run
    add(values, [Figure(name, value, "µs") for name, value in zip(names, (few, many, one, two), strict=True)])
    return {figure.what.split()[-2]: figure for figure in compare(values, 2)}


def test_how_many_are_connected_may_make_a_fifth() -> None:
    for many, verdict in ((60, "meets 20"), (61, "MISSES 20"), (40, "meets 20"), (39, "MISSES 20")):
        figure = compared(50, many, 5, 5)["differs"]
        assert describe("Aphlict", [figure], None, judged=True).endswith(verdict)


def test_several_workers_may_cost_a_tenth_more() -> None:
    for two, verdict in ((5.4, "meets 10"), (5.6, "MISSES 10"), (2, "meets 10")):
        figure = compared(50, 50, 5, two)["grows"]
        assert describe("Aphlict", [figure], None, judged=True).endswith(verdict)


def test_a_clock_that_is_too_coarse_gives_no_comparison() -> None:
    assert compared(0, 50, 0, 5) == {}


def test_a_refusal_when_all_come_back_misses_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    result = {"failed": 2, "closed_early": 1, "deliveries": 3990, "connect_s": 1.5}
    monkeypatch.setattr(workloads, "measure", lambda *_: result)
    figures = workloads.comeback(Path(), Target("", 0, 0, ()), 1.0)
    verdicts = [describe("Aphlict", [figure], None, judged=True).split()[-2:] for figure in figures]
    assert verdicts == [["meets", "3"], ["MISSES", "0"], ["MISSES", "0"]]
    assert [figure.value for figure in figures] == [1.5, 3, 10]
