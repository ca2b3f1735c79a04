"""The overview: series of rates, and the largest of what several processes report."""

from aphlict.core.metrics import DELIVERY, Histogram, Samples, single
from aphlict.core.overview import (
    MAX_EVENTS,
    MAX_POINTS,
    MAX_RECENT,
    ChannelSize,
    InstanceSize,
    LoggedEvent,
    ProcessOverview,
    RecentEvents,
    SlowClient,
    TimeSeries,
    describe_figures,
    describe_processes,
)


def counted(messages: float, deliveries: Histogram | None = None) -> Samples:
    """Samples with a counter and a histogram."""
    histogram = {} if deliveries is None else deliveries.samples()
    return {**single({"aphlict_messages_total": messages}), **histogram}


def test_rates_and_means() -> None:
    series, deliveries = TimeSeries(), Histogram(DELIVERY)
    series.add(counted(100, deliveries), 10.0, 1000.0)
    assert series.as_dict()["messages"] == [], "nothing to compare with"
    deliveries.observe(0.1)
    deliveries.observe(0.3)
    series.add(counted(150, deliveries), 15.0, 1005.0)
    series.add(counted(150, deliveries), 25.0, 1015.0)
    found = series.as_dict()
    assert (found["interval"], found["time"]) == (5.0, 1015.0)
    assert found["messages"] == [10.0, 0.0]
    assert found["delivery_time"] == [0.2, None]
    assert found["publish_time"] == [None, None]
    assert found["connections"] == [0, 0]


def test_a_series_is_bounded_and_has_no_negative_rates() -> None:
    series = TimeSeries()
    for number in range(2 * MAX_POINTS):
        series.add(counted(number), number, number)
    series.add(counted(0), 2 * MAX_POINTS, 0)
    found = series.as_dict()["messages"]
    assert len(found) == MAX_POINTS
    assert set(found[:-1]) == {1.0}
    assert found[-1] == 0.0, "another process counts from 0"


def test_samples_of_the_same_moment() -> None:
    series = TimeSeries()
    series.add(counted(0), 1.0, 1.0)
    series.add(counted(1), 1.0, 1.0)
    assert len(series.as_dict()["messages"]) == 1


def test_figures_without_any_samples() -> None:
    found = describe_figures({})
    assert found["figures"]["connections"] == found["limits"] == {}
    assert found["figures"]["messages"] == found["processes_expected"] == 0


def make_process(name: str, **lists: list[object]) -> ProcessOverview:
    """The report of a process."""
    empty: dict[str, list[object]] = {"slow_clients": [], "instances": [], "channels": [], "events": []}
    return ProcessOverview(name, 1, 0, 0, 0.0, **{**empty, **lists})  # type: ignore[arg-type]


def event(time: float) -> LoggedEvent:
    return LoggedEvent(time, "info", "stopped", "worker", "")


def test_the_largest_of_all_processes() -> None:
    def client(process: str, number: int, size: int) -> SlowClient:
        return SlowClient(process, number, "a", None, "websocket", size, "default")

    processes = [
        make_process(
            "edge 1",
            slow_clients=[client("edge 1", 1, 5), client("edge 1", 2, 50)],
            instances=[InstanceSize("default", 3, 2, 0), InstanceSize("acme", 4, 1, 0)],
            channels=[ChannelSize("default", "a", 3), ChannelSize("acme", "a", 4)],
            events=[event(1), event(4)],
        ),
        make_process(
            "edge 2",
            slow_clients=[client("edge 2", 1, 20)],
            instances=[InstanceSize("default", 2, 1, 0)],
            channels=[ChannelSize("default", "a", 2), ChannelSize("default", "b", 1)],
            events=[event(2), event(3)],
        ),
    ]
    found = describe_processes(processes, {"default": 7, "acme": 0}.__getitem__)
    assert [(each.process, each.waiting_bytes) for each in found["slow_clients"]] == [
        ("edge 1", 50),
        ("edge 2", 20),
        ("edge 1", 5),
    ]
    assert found["instances"] == [InstanceSize("default", 5, 3, 7), InstanceSize("acme", 4, 1, 0)]
    assert found["channels"] == [
        ChannelSize("default", "a", 5),
        ChannelSize("acme", "a", 4),
        ChannelSize("default", "b", 1),
    ]
    assert [each.time for each in found["events"]] == [1, 2, 3, 4]
    assert [each["name"] for each in found["processes"]] == ["edge 1", "edge 2"]


def test_lists_are_bounded() -> None:
    names = [f"{number:03}" for number in range(100)]
    process = make_process(
        "worker",
        instances=[InstanceSize(name, 1, 1, 0) for name in names],
        channels=[ChannelSize("default", name, 1) for name in reversed(names)],
        events=[event(number) for number in range(2 * MAX_EVENTS)],
    )
    found = describe_processes([process], lambda _: 0)
    assert [each.instance for each in found["instances"]] == names[:20]
    assert [each.channel for each in found["channels"]] == names[:20], "the same ones each time"
    assert [each.time for each in found["events"]] == list(range(MAX_EVENTS, 2 * MAX_EVENTS)), "the last ones"


def test_recent_events() -> None:
    events = RecentEvents()
    for number in range(MAX_RECENT + 5):
        events.add(event(number))
    assert [each.time for each in events.snapshot()] == list(range(5, MAX_RECENT + 5))
    events.clear()
    assert events.snapshot() == []
