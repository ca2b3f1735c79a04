"""The timer wheel: deadlines are handled when they have come, a few at a time."""

import weakref

from aphlict.server.timer_wheel import GROUP_SIZE, MAX_BATCH, TICK, HasDeadline, TimerWheel


class Alarm(HasDeadline):
    """Records when it is called, and returns the deadlines that it was given."""

    def __init__(self, *next_deadlines: float) -> None:
        super().__init__()
        self.times: list[float] = []
        self.next_deadlines = list(next_deadlines)

    def on_deadline(self, now: float, /) -> float | None:
        """Part of HasDeadline."""
        self.times.append(now)
        return self.next_deadlines.pop(0) if self.next_deadlines else None


def test_no_deadline_is_handled_early() -> None:
    wheel, alarm = TimerWheel(100.0), Alarm(102.0)
    wheel.add(alarm, 101.0)
    for now in (100.5, 100.9, 101.0, 101.5, 102.0, 103.0):
        assert not wheel.sweep(now)
    assert alarm.times == [101.0, 102.0]


def test_a_time_in_the_past_is_handled_at_the_next_tick() -> None:
    wheel, alarm = TimerWheel(100.0), Alarm()
    wheel.add(alarm, 50.0)
    wheel.sweep(100.0 + TICK)
    assert alarm.times == [100.0 + TICK]


def test_many_deadlines_take_several_sweeps() -> None:
    wheel, alarms = TimerWheel(0.0), [Alarm() for _ in range(3 * MAX_BATCH)]
    for alarm in alarms:
        wheel.add(alarm, 1.0)
    assert [wheel.sweep(1.0) for _ in range(3)] == [True, True, False]
    assert all(alarm.times == [1.0] for alarm in alarms)


def test_a_cancelled_object_is_released_and_not_called() -> None:
    wheel, alarms = TimerWheel(0.0), [Alarm() for _ in range(3 * GROUP_SIZE)]
    for alarm in alarms:
        wheel.add(alarm, 1.0)
    gone = [weakref.ref(alarm) for alarm in alarms[::2]]
    for alarm in alarms[::2]:
        wheel.cancel(alarm)
        wheel.cancel(alarm)
    alarms, alarm = alarms[1::2], alarms[1]
    assert not any(each() for each in gone)
    while wheel.sweep(1.0):
        pass
    assert all(each.times == [1.0] for each in alarms)


def test_a_deadline_that_has_come_can_be_cancelled() -> None:
    wheel, alarms = TimerWheel(0.0), [Alarm() for _ in range(2 * MAX_BATCH)]
    for alarm in alarms:
        wheel.add(alarm, 1.0)
    assert wheel.sweep(1.0)
    late = [alarm for alarm in alarms if not alarm.times]
    assert len(late) == MAX_BATCH
    for alarm in late:
        wheel.cancel(alarm)
    assert not wheel.sweep(1.0)
    assert not any(alarm.times for alarm in late)


def test_a_deadline_replaces_the_previous_one() -> None:
    wheel, alarm = TimerWheel(0.0), Alarm()
    wheel.add(alarm, 1.0)
    wheel.add(alarm, 3.0)
    wheel.add(alarm, 2.0)
    for now in (1.0, 2.0, 3.0, 4.0):
        wheel.sweep(now)
    assert alarm.times == [2.0]


def test_a_deadline_that_is_added_by_the_handler_takes_precedence() -> None:
    wheel = TimerWheel(0.0)

    class Mover(Alarm):
        def on_deadline(self, now: float, /) -> float | None:
            if not self.times:
                wheel.add(self, 2.0)
            return super().on_deadline(now)

    mover = Mover(9.0)
    wheel.add(mover, 1.0)
    for now in (1.0, 2.0, 9.0):
        wheel.sweep(now)
    assert mover.times == [1.0, 2.0]


def test_a_deadline_passes_to_a_successor() -> None:
    wheel, alarm, successor = TimerWheel(0.0), Alarm(), Alarm()
    wheel.add(alarm, 1.0)
    wheel.replace(alarm, successor)
    wheel.cancel(alarm)
    wheel.sweep(1.0)
    assert (alarm.times, successor.times) == ([], [1.0])
    wheel.replace(alarm, successor)
    assert not wheel.sweep(2.0)
    assert successor.times == [1.0]
