"""The overview of a node: its figures, their last minutes, and the largest of its clients, instances and channels."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from aphlict.core.metrics import SUM, Samples

OVERVIEW_PATH = "/overview"
MAX_ROWS = 20  # of a list
MAX_CANDIDATES = (
    100  # of a list that a process reports: which rows are largest, only the sum of all processes shows
)
MAX_EVENTS = 100
MAX_RECENT = 200  # events that a process keeps
MAX_EVENT_TEXT = 1000  # characters
SAMPLE_INTERVAL = 5.0  # seconds
MAX_POINTS = 60  # of a series: five minutes


class LoggedEvent(Struct, frozen=True):
    """A line of the log, of at most MAX_EVENT_TEXT. `time` is Unix time."""

    time: float
    level: str
    event: str
    process: str
    message: str


class RecentEvents:
    """The last lines of the log of a process, in the order in which they were logged. `process` is its name there."""

    def __init__(self, process: str = "worker") -> None:
        self.process = process
        self._ring: deque[LoggedEvent] = deque(maxlen=MAX_RECENT)

    def add(self, event: LoggedEvent) -> None:
        """Add a line."""
        self._ring.append(event)

    def clear(self) -> None:
        """Forget all of them."""
        self._ring.clear()

    def snapshot(self) -> list[LoggedEvent]:
        """Return all of them."""
        return list(self._ring)


class SlowClient(Struct, frozen=True):
    """A client that has not accepted all that was sent to it. `subject` is that of its token."""

    process: str
    connection: int
    address: str
    subject: str | None
    transport: str
    waiting_bytes: int
    instance: str


class InstanceSize(Struct, frozen=True):
    """An instance. `messages` are those in the history; a channel counts in each process that has subscribers."""

    instance: str
    connections: int
    channels: int
    messages: int


class ChannelSize(Struct, frozen=True):
    """A channel."""

    instance: str
    channel: str
    subscribers: int


class ProcessOverview(Struct):
    """What a process reports. `lag`: the longest delay of its event loop in the last seconds."""

    name: str
    pid: int
    connections: int
    memory: int
    lag: float
    slow_clients: list[SlowClient]
    instances: list[InstanceSize]
    channels: list[ChannelSize]
    events: list[LoggedEvent]


class TimeSeries:
    """The rates of the last five minutes, from samples that are taken every SAMPLE_INTERVAL."""

    def __init__(self) -> None:
        self._time = 0.0
        self._last: Samples | None = None
        self._last_at = 0.0
        self._points: dict[str, deque[float | None]] = {name: deque(maxlen=MAX_POINTS) for name in SERIES}

    def add(self, samples: Samples, now: float, unix_now: float) -> None:
        """Add the samples of a moment. The first ones are only what the next ones are compared with."""
        last, self._last = self._last, samples
        seconds, self._last_at = now - self._last_at, now
        if last is None:
            return
        self._time = unix_now
        for name, read in SERIES.items():
            self._points[name].append(read(last, samples, max(seconds, 0.001)))

    def as_dict(self) -> dict[str, Any]:
        """Return the series, the oldest value first."""
        points = {name: list(points) for name, points in self._points.items()}
        return {"interval": SAMPLE_INTERVAL, "time": self._time, **points}


Reading = Callable[
    [Samples, Samples, float], float | None
]  # of the last samples, these, and the seconds between


def _gauge(title: str) -> Reading:
    return lambda _last, samples, _seconds: total(samples, title)


def _rate(title: str) -> Reading:
    """A counter that has decreased belongs to another process."""
    return lambda last, samples, seconds: max(0.0, total(samples, title) - total(last, title)) / seconds


def _mean(title: str) -> Reading:
    def read(last: Samples, samples: Samples, _seconds: float) -> float | None:
        sums, counts = zip(_sum_and_count(last, title), _sum_and_count(samples, title), strict=True)
        count = counts[1] - counts[0]
        return max(0.0, sums[1] - sums[0]) / count if count > 0 else None

    return read


def _sum_and_count(samples: Samples, title: str) -> tuple[float, float]:
    values = samples.get(title, {})
    sum_ = values.get(SUM, 0.0)
    return sum_, sum(values.values()) - sum_


SERIES: Mapping[str, Reading] = {
    "connections": _gauge("aphlict_connections"),
    "messages": _rate("aphlict_messages_total"),
    "deliveries": _rate("aphlict_deliveries_total"),
    "delivery_time": _mean("aphlict_delivery_duration_seconds"),
    "publish_time": _mean("aphlict_publish_duration_seconds"),
    "closed": _rate("aphlict_connections_closed_total"),
    "waiting_bytes": _gauge("aphlict_waiting_bytes"),
}

# Of single samples; "connections", "recovered" and "gap" are values of labels.
FIGURES = {
    "connections_limit": "aphlict_connections_limit",
    "publisher_connections": "aphlict_publisher_connections",
    "subscriptions": "aphlict_subscriptions",
    "waiting_bytes": "aphlict_waiting_bytes",
    "waiting_clients": "aphlict_waiting_clients",
    "queued_deliveries": "aphlict_queued_deliveries",
    "history_messages": "aphlict_history_messages",
    "history_bytes": "aphlict_history_bytes",
    "memory": "process_resident_memory_bytes",
    "messages": "aphlict_messages_total",
    "deliveries": "aphlict_deliveries_total",
    "duplicates": "aphlict_duplicates_total",
    "lost": "aphlict_lost_messages_total",
}


def total(samples: Samples, title: str) -> float:
    """Return the sum of a metric over its labels."""
    return sum(samples.get(title, {}).values())


def describe_figures(samples: Samples) -> dict[str, Any]:
    """Return the members of an overview that are metrics."""
    replays = samples.get("aphlict_replays_total", {})
    figures = {
        "connections": _counts(samples, "aphlict_connections"),
        **{name: int(total(samples, title)) for name, title in FIGURES.items()},
        "descriptors_used_ratio": total(samples, "aphlict_descriptors_used_ratio"),
        **{name: int(replays.get(name, 0)) for name in ("recovered", "gap")},
    }
    expiry = samples.get("aphlict_certificate_expiry_timestamp_seconds", {})
    return {
        "processes_expected": int(total(samples, "aphlict_processes_expected")),
        "figures": figures,
        "closed": _counts(samples, "aphlict_connections_closed_total"),
        "limits": _positive(_counts(samples, "aphlict_limits_reached_total")),
        "refused": _positive(_counts(samples, "aphlict_requests_refused_total")),
        "certificates": [{"port": port, "expires": expires} for port, expires in sorted(expiry.items())],
    }


def _counts(samples: Samples, title: str) -> dict[str, int]:
    return {label: int(value) for label, value in samples.get(title, {}).items()}


def _positive(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def describe_processes(
    processes: Sequence[ProcessOverview], messages: Callable[[str], int]
) -> dict[str, Any]:
    """Return the members of an overview that are lists. `messages` counts the history of an instance."""
    return {
        "processes": [
            {name: getattr(each, name) for name in ("name", "pid", "connections", "memory", "lag")}
            for each in processes
        ],
        "slow_clients": largest_clients(each for process in processes for each in process.slow_clients),
        "instances": [
            replace(each, messages=messages(each.instance))
            for each in largest_instances(each for process in processes for each in process.instances)
        ],
        "channels": largest_channels(each for process in processes for each in process.channels),
        "events": sorted(
            (event for process in processes for event in process.events), key=lambda event: event.time
        )[-MAX_EVENTS:],
    }


def largest_clients(clients: Iterable[SlowClient], count: int = MAX_ROWS) -> list[SlowClient]:
    """Return those for which most bytes wait."""
    return sorted(clients, key=lambda each: (-each.waiting_bytes, each.process, each.connection))[:count]


def largest_instances(instances: Iterable[InstanceSize], count: int = MAX_ROWS) -> list[InstanceSize]:
    """Return those with most connections, each once."""
    merged = _merge(
        instances,
        lambda each: each.instance,
        lambda one, other: InstanceSize(
            one.instance,
            one.connections + other.connections,
            one.channels + other.channels,
            max(one.messages, other.messages),
        ),
    )
    return sorted(merged, key=lambda each: (-each.connections, each.instance))[:count]


def largest_channels(channels: Iterable[ChannelSize], count: int = MAX_ROWS) -> list[ChannelSize]:
    """Return those with most subscribers, each once."""
    merged = _merge(
        channels,
        lambda each: (each.instance, each.channel),
        lambda one, other: replace(one, subscribers=one.subscribers + other.subscribers),
    )
    return sorted(merged, key=lambda each: (-each.subscribers, each.instance, each.channel))[:count]


Row = TypeVar("Row")


def _merge(
    rows: Iterable[Row], key: Callable[[Row], object], add: Callable[[Row, Row], Row]
) -> Iterable[Row]:
    merged: dict[object, Row] = {}
    for row in rows:
        name = key(row)
        merged[name] = add(merged[name], row) if name in merged else row
    return merged.values()
