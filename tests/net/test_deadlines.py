"""Deadlines: looked at when they have come, a few at a time."""

from aphlict.net.deadlines import BATCH, TICK, Deadlines


class Alarm:
    """Keeps when it was looked at, and asks for the looks that it was given."""

    def __init__(self, *again: float) -> None:
        self.looks: list[float] = []
        self.again = list(again)

    def on_deadline(self, now: float, /) -> float | None:
        """Part of the interface of Timed."""
        self.looks.append(now)
        return self.again.pop(0) if self.again else None


def test_nothing_is_looked_at_before_its_time() -> None:
    deadlines, alarm = Deadlines(100.0), Alarm(102.0)
    deadlines.add(alarm, 101.0)
    for now in (100.5, 100.9, 101.0, 101.5, 102.0, 103.0):
        assert not deadlines.sweep(now)
    assert alarm.looks == [101.0, 102.0]


def test_a_time_that_has_passed_comes_with_the_next_tick() -> None:
    deadlines, alarm = Deadlines(100.0), Alarm()
    deadlines.add(alarm, 50.0)
    deadlines.sweep(100.0 + TICK)
    assert alarm.looks == [100.0 + TICK]


def test_many_at_once_are_looked_at_in_several_sweeps_and_each_once() -> None:
    deadlines, alarms = Deadlines(0.0), [Alarm() for _ in range(3 * BATCH)]
    for alarm in alarms:
        deadlines.add(alarm, 1.0)
    assert [deadlines.sweep(1.0) for _ in range(3)] == [True, True, False]
    assert all(alarm.looks == [1.0] for alarm in alarms)
