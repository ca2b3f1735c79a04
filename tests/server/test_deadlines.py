"""Deadlines: looked at when they have come, a few at a time."""

import weakref

from aphlict.server.timer_wheel import BATCH, GROUP, TICK, HasDeadline, TimerWheel


class Alarm(HasDeadline):
    """Keeps when it was looked at, and asks for the looks that it was given."""

    def __init__(self, *again: float) -> None:
        super().__init__()
        self.looks: list[float] = []
        self.again = list(again)

    def on_deadline(self, now: float, /) -> float | None:
        """Part of the interface of Timed."""
        self.looks.append(now)
        return self.again.pop(0) if self.again else None


def test_nothing_is_looked_at_before_its_time() -> None:
    deadlines, alarm = TimerWheel(100.0), Alarm(102.0)
    deadlines.add(alarm, 101.0)
    for now in (100.5, 100.9, 101.0, 101.5, 102.0, 103.0):
        assert not deadlines.sweep(now)
    assert alarm.looks == [101.0, 102.0]


def test_a_time_that_has_passed_comes_with_the_next_tick() -> None:
    deadlines, alarm = TimerWheel(100.0), Alarm()
    deadlines.add(alarm, 50.0)
    deadlines.sweep(100.0 + TICK)
    assert alarm.looks == [100.0 + TICK]


def test_many_at_once_are_looked_at_in_several_sweeps_and_each_once() -> None:
    deadlines, alarms = TimerWheel(0.0), [Alarm() for _ in range(3 * BATCH)]
    for alarm in alarms:
        deadlines.add(alarm, 1.0)
    assert [deadlines.sweep(1.0) for _ in range(3)] == [True, True, False]
    assert all(alarm.looks == [1.0] for alarm in alarms)


def test_what_is_cancelled_is_released_and_not_looked_at() -> None:
    deadlines, alarms = TimerWheel(0.0), [Alarm() for _ in range(3 * GROUP)]
    for alarm in alarms:
        deadlines.add(alarm, 1.0)
    gone = [weakref.ref(alarm) for alarm in alarms[::2]]
    for alarm in alarms[::2]:
        deadlines.cancel(alarm)
        deadlines.cancel(alarm)
    alarms, alarm = alarms[1::2], alarms[1]
    assert not any(each() for each in gone)
    while deadlines.sweep(1.0):
        pass
    assert all(each.looks == [1.0] for each in alarms)


def test_what_is_due_but_has_not_had_its_turn_can_be_cancelled() -> None:
    deadlines, alarms = TimerWheel(0.0), [Alarm() for _ in range(2 * BATCH)]
    for alarm in alarms:
        deadlines.add(alarm, 1.0)
    assert deadlines.sweep(1.0)
    late = [alarm for alarm in alarms if not alarm.looks]
    assert len(late) == BATCH
    for alarm in late:
        deadlines.cancel(alarm)
    assert not deadlines.sweep(1.0)
    assert not any(alarm.looks for alarm in late)


def test_a_deadline_takes_the_place_of_the_one_before() -> None:
    deadlines, alarm = TimerWheel(0.0), Alarm()
    deadlines.add(alarm, 1.0)
    deadlines.add(alarm, 3.0)
    deadlines.add(alarm, 2.0)
    for now in (1.0, 2.0, 3.0, 4.0):
        deadlines.sweep(now)
    assert alarm.looks == [2.0]


def test_a_deadline_that_is_added_during_the_look_counts() -> None:
    deadlines = TimerWheel(0.0)

    class Mover(Alarm):
        def on_deadline(self, now: float, /) -> float | None:
            if not self.looks:
                deadlines.add(self, 2.0)
            return super().on_deadline(now)

    mover = Mover(9.0)
    deadlines.add(mover, 1.0)
    for now in (1.0, 2.0, 9.0):
        deadlines.sweep(now)
    assert mover.looks == [1.0, 2.0]
