"""Flow control between hub and edge, without sockets."""

import pytest

from aphlict.workers.ipc import MAX_ROOM, REPORT_LIFETIME, FlowControl


@pytest.mark.parametrize(
    ("load", "reach", "room"),
    [
        (0, 0, MAX_ROOM),
        (0, 1e-6, MAX_ROOM),
        (0, 0.1, 10),
        (0.5, 0.1, 5),
        (0.99, 0.1, 1),
        (7, 0.1, 1),
        (0, 3, 1),
    ],
)
def test_there_is_room_for_messages_to_all_clients(load: float, reach: float, room: int) -> None:
    flow = FlowControl()
    flow.on_report(load, reach, 10.0)
    assert flow.room(10.0) == room


def test_unconfirmed_messages_take_room() -> None:
    flow = FlowControl()
    flow.on_report(0.0, 0.01, 10.0)
    flow.on_sent(30)
    flow.on_sent(30)
    assert flow.room(10.0) == 40
    flow.on_report(0.1, 0.01, 10.0, confirmed=30)
    assert flow.room(10.0) == 60


def test_without_a_fresh_report_one_message_asks_for_it() -> None:
    flow = FlowControl()
    assert flow.room(10.0) == 1
    flow.on_report(0.0, 0.0, 10.0)
    assert flow.room(10.0 + REPORT_LIFETIME) == MAX_ROOM
    assert flow.room(10.1 + REPORT_LIFETIME) == 1


def test_a_late_edge_does_not_delay_others() -> None:
    flow = FlowControl()
    flow.is_late = True
    assert flow.room(10.0) == MAX_ROOM
    flow.on_report(1.0, 0.1, 10.0)
    assert flow.room(10.0) == 1
