"""The table: each figure over all runs, its ratio to the floor, and whether it meets its target."""

import platform
import statistics
from collections.abc import Iterable, Iterator

from benchmarks.workloads import Figure, cpu_per_publish

OURS = "Aphlict"
FEW, MANY = 100, 10_000  # connected clients, of which one receives the message
Values = dict[str, list[Figure]]


def add(values: Values, figures: Iterable[Figure]) -> None:
    """Add the figures of a run."""
    for figure in figures:
        values.setdefault(figure.what, []).append(figure)


def cpu_with(workers: int) -> str:
    """The name of the figure."""
    return f"2,000 clients, {workers} worker{'s' * (workers > 1)}: CPU per delivery"


def compare(values: Values, workers: int) -> Iterator[Figure]:
    """Compare figures of the last run; yield nothing where the clock was too coarse for one of them."""
    few, many = (values[cpu_per_publish(each)][-1].value for each in (FEW, MANY))
    if few:
        difference = abs(many / few - 1) * 100
        yield Figure(
            f"one publish to one client of {MANY:,}, not of {FEW:,}: differs by", difference, "%", 20
        )
    one, several = (values[cpu_with(each)][-1].value for each in (1, workers))
    if one:
        growth = (several / one - 1) * 100
        yield Figure(f"2,000 clients, {workers} workers, not 1: CPU per delivery grows by", growth, "%", 10)


def print_table(measured: dict[str, Values], scale: float) -> None:
    """Print a line for each figure.

    Targets apply to the full scale: with fewer messages the clock of CPU time is too coarse.
    """
    print(f"\nPython {platform.python_version()}, Linux {platform.release()}, {platform.machine()}\n")
    if scale != 1:
        print(f"The numbers of clients and messages are scaled by {scale:g}: figures are not comparable.\n")
    for name, values in measured.items():
        for what, figures in values.items():
            floor = measured["floor"].get(what) if name != "floor" else None
            print(describe(name, figures, floor, judged=scale == 1 and name == OURS))


def describe(name: str, figures: list[Figure], floor: list[Figure] | None, *, judged: bool) -> str:
    """Return a line: the median, the range, the ratio to the floor, and whether the target is met."""
    numbers, kind = sorted(figure.value for figure in figures), figures[0]
    median = statistics.median(numbers)
    scope = f"({numbers[0]:,.2f} to {numbers[-1]:,.2f})"
    line = f"{name:12} {kind.what:72} {median:10,.2f} {kind.unit:3} {scope}"
    if kind.target is not None and judged:
        line += _verdict(numbers[-1] if kind.always else median, kind.target)
    lowest = statistics.median(figure.value for figure in floor) if floor else 0
    if kind.beside_floor and lowest:
        line += f"  {median / lowest:.2f} x the floor"
        if kind.ratio is not None and judged:
            line += _verdict(median / lowest, kind.ratio)
    return line


def _verdict(value: float, target: float) -> str:
    return f"  {'meets' if value <= target else 'MISSES'} {target:g}"
