"""The metrics: their table, and the figures of processes, which are added up."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, NamedTuple, get_args

from aphlict.core.hub import Hub
from aphlict.core.stats import LIMIT_NAMES, REFUSALS

Kind = Literal["gauge", "counter", "histogram"]
Transport = Literal["websocket", "sse", "poll"]
Cause = Literal["client", "timeout", "slow", "limit", "token", "gap", "shutdown", "error"]
Outcome = Literal["recovered", "gap", "age"]

TRANSPORTS: tuple[Transport, ...] = get_args(Transport)
CAUSES: tuple[Cause, ...] = get_args(Cause)  # of the end of a connection
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)  # of a replay

# Metric to value of its label (empty without a label) to value. A histogram has a value for each of its buckets, by
# the upper bound, which does not include the smaller ones; and "sum".
Samples = dict[str, dict[str, float]]

SUM = "sum"  # key of the sum of a histogram
MAX_PROCESSES = 64  # whose last figures are kept one by one


class Metric(NamedTuple):
    """One metric. `values`: those of the label that always have a series. `merge`: how the figures of several
    processes become one."""

    name: str  # without the suffix of a counter, `_total`
    kind: Kind
    help: str
    label: str = ""
    values: tuple[str, ...] = ("",)
    buckets: tuple[float, ...] = ()
    merge: Literal["sum", "max", "min"] = "sum"

    @property
    def title(self) -> str:
        """Return the name under which it is queried."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _gauge(name: str, text: str, merge: Literal["sum", "max", "min"] = "sum") -> Metric:
    return Metric(name, "gauge", text, merge=merge)


def _counter(name: str, text: str, label: str = "", values: tuple[str, ...] = ("",)) -> Metric:
    return Metric(name, "counter", text, label, values)


def _histogram(name: str, text: str, *buckets: float) -> Metric:
    return Metric(name, "histogram", text, buckets=buckets)


PUBLISH = _histogram(
    "aphlict_publish_duration_seconds",
    "Time of a POST that publishes, from its last byte to the response",
    *(0.005, 0.025, 0.25, 2.0),
)
DELIVERY = _histogram(
    "aphlict_delivery_duration_seconds",
    "Time from the acceptance of a message to its write to the last socket; with workers, one for each process",
    *(0.001, 0.01, 0.1, 1.0),
)
LAG = _histogram("aphlict_event_loop_lag_seconds", "How late a timer of the event loop ran", 0.005, 0.05, 0.5)
PAUSE = _histogram("aphlict_gc_pause_seconds", "Time of a garbage collection", 0.005, 0.05)

METRICS = (
    _gauge("aphlict_ready", "1 if the state is RUNNING, else 0"),
    _gauge("aphlict_processes", "Processes whose figures are included"),
    _gauge("aphlict_processes_expected", "Processes that the server should have"),
    Metric("aphlict_connections", "gauge", "Clients connected", "transport", TRANSPORTS),
    _gauge("aphlict_connections_limit", "Connections that all client ports together accept"),
    _gauge("aphlict_publisher_connections", "Connections to the admin ports"),
    _gauge("aphlict_subscriptions", "Subscriptions of all clients"),
    _gauge("aphlict_waiting_bytes", "Bytes that clients have not accepted, or not sent completely"),
    _gauge("aphlict_waiting_clients", "Connections with such bytes"),
    _gauge("aphlict_queued_deliveries", "Deliveries that have not been written to their sockets"),
    _gauge("aphlict_history_messages", "Messages in the history"),
    _gauge("aphlict_history_bytes", "Memory of the history"),
    _gauge("aphlict_descriptors_used_ratio", "Used part of the file descriptors, 0 to 1", "max"),
    Metric(
        "aphlict_certificate_expiry_timestamp_seconds",
        *("gauge", "When the certificate of a port expires, as Unix time", "port", ()),
        merge="min",
    ),
    Metric("aphlict_peer_up", "gauge", "1 if the peer is up, else 0", "peer", ()),
    Metric("aphlict_peer_queued_messages", "gauge", "Messages that the peer has not accepted", "peer", ()),
    Metric("aphlict_peer_round_trip_seconds", "gauge", "Time of the last request to the peer", "peer", ()),
    _gauge("process_resident_memory_bytes", "Resident memory"),
    _gauge("process_open_fds", "Open file descriptors"),
    _gauge("process_max_fds", "Limit of open file descriptors"),
    _gauge("process_start_time_seconds", "Start of the oldest process, as Unix time", "min"),
    _counter("process_cpu_seconds", "Processor time in user and system mode"),
    _counter("aphlict_connections_opened", "Clients that connected", "transport", TRANSPORTS),
    _counter("aphlict_connections_closed", "Clients that were disconnected", "reason", CAUSES),
    _counter("aphlict_messages", "Messages from publishers and nodes, duplicates included"),
    _counter("aphlict_duplicates", "Messages that were known before"),
    _counter("aphlict_deliveries", "Messages times receivers, replays included"),
    _counter("aphlict_delivered_bytes", "Bytes of the deliveries, without subscribers and framing"),
    _counter("aphlict_replays", "Replays to clients that resumed", "outcome", OUTCOMES),
    _counter("aphlict_lost_messages", "Messages of other nodes that never arrived here"),
    _counter("aphlict_publish_requests_rejected", "Requests to admin ports that were answered with an error"),
    _counter("aphlict_limits_reached", "How often a limit was reached", "limit", tuple(LIMIT_NAMES)),
    _counter("aphlict_requests_refused", "How often a check refused a client", "check", tuple(REFUSALS)),
    _counter("aphlict_peer_sent_messages", "Messages that the peer has accepted", "peer", ()),
    _counter("aphlict_peer_dropped_messages", "Messages that the peer will not receive", "peer", ()),
    PUBLISH,
    DELIVERY,
    LAG,
    PAUSE,
)
BY_TITLE = {metric.title: metric for metric in METRICS}


class Histogram:
    """Counts observations by size. Not cumulative: one observation changes one bucket."""

    __slots__ = ("_bounds", "_counts", "_metric", "_sum")

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._bounds = metric.buckets
        self._counts = [0] * (len(metric.buckets) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count an observation."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def samples(self) -> Samples:
        """Return the samples."""
        counts = dict(zip(bounds(self._metric), self._counts, strict=True))
        return {self._metric.title: {**counts, SUM: self._sum}}


def bounds(metric: Metric) -> list[str]:
    """Return the upper bounds of the buckets of a histogram, as labels."""
    return [*map(str, metric.buckets), "+Inf"]


def merge(parts: Iterable[Samples]) -> Samples:
    """Return the figures of several processes as one."""
    merged: Samples = {}
    for part in parts:
        for title, values in part.items():
            into = merged.setdefault(title, {})
            for label, value in values.items():
                into[label] = _combine(BY_TITLE[title], into[label], value) if label in into else value
    return merged


def _combine(metric: Metric, one: float, other: float) -> float:
    if metric.merge == "sum":
        return one + other
    return max(one, other) if metric.merge == "max" else min(one, other)


class ProcessTotals:
    """The figures of processes that come and go. What a process had counted remains included when it is gone:
    Prometheus takes a counter that decreases for one that began again at 0."""

    def __init__(self) -> None:
        self._last: dict[str, Samples] = {}  # by process, in the order of their first figures
        self._departed: Samples = {}

    def update(self, process: str, samples: Samples) -> None:
        """Note the present figures of a process; its name is never used again by another one."""
        self._last[process] = samples

    def total(self, present: Collection[str]) -> Samples:
        """Return the sum of the present processes, and of what the others have counted."""
        absent = [process for process in self._last if process not in present]
        for process in absent[: max(0, len(self._last) - MAX_PROCESSES)]:
            self._departed = merge([self._departed, _counted(self._last.pop(process))])
        parts = (each if process in present else _counted(each) for process, each in self._last.items())
        return merge([self._departed, *parts])


def _counted(samples: Samples) -> Samples:
    return {title: values for title, values in samples.items() if BY_TITLE[title].kind != "gauge"}


class ConnectionCounters:
    """Clients by transport and by the reason of their end, and rejected requests of publishers."""

    def __init__(self) -> None:
        self.rejected = 0
        self._opened: dict[str, float] = dict.fromkeys(TRANSPORTS, 0)
        self._open: dict[str, float] = dict.fromkeys(TRANSPORTS, 0)
        self._closed: dict[str, float] = dict.fromkeys(CAUSES, 0)

    def on_opened(self, transport: Transport) -> None:
        """Count a new client."""
        self._opened[transport] += 1
        self._open[transport] += 1

    def on_closed(self, transport: Transport, cause: Cause) -> None:
        """Count the end of one."""
        self._open[transport] -= 1
        self._closed[cause] += 1

    def samples(self) -> Samples:
        """Return the samples."""
        return {
            "aphlict_connections": self._open.copy(),
            "aphlict_connections_opened_total": self._opened.copy(),
            "aphlict_connections_closed_total": self._closed.copy(),
            **single({"aphlict_publish_requests_rejected_total": self.rejected}),
        }


def single(values: Mapping[str, float]) -> Samples:
    """Return samples without labels."""
    return {title: {"": value} for title, value in values.items()}


def client_samples(hub: Hub) -> Samples:
    """Return what a process with clients, or without, has of its hub."""
    counters, counts = hub.counters, hub.limit_counters.counts
    return {
        **single(
            {
                "aphlict_processes": 1,
                "aphlict_subscriptions": hub.subscription_memory.count,
                "aphlict_queued_deliveries": hub.fan_out.queued,
                "aphlict_deliveries_total": counters.messages_out,
                "aphlict_delivered_bytes_total": counters.bytes_out,
            }
        ),
        "aphlict_replays_total": dict[str, float](counters.replays),
        "aphlict_limits_reached_total": {name: counts.get(name, 0) for name in LIMIT_NAMES},
        "aphlict_requests_refused_total": {name: counts.get(name, 0) for name in REFUSALS},
    }


def node_samples(hub: Hub) -> Samples:
    """Return what only one process of a node has: an edge counts and keeps the messages of its hub again."""
    counters, history = hub.counters, hub.history
    return {
        **single(
            {
                "aphlict_messages_total": counters.messages_in,
                "aphlict_duplicates_total": counters.duplicates,
                "aphlict_lost_messages_total": hub.sequencer.lost,
                "aphlict_history_messages": history.count,
                "aphlict_history_bytes": history.memory_size,
            }
        ),
        "aphlict_limits_reached_total": {"limits.history": history.overflowed},
    }
