"""Traces: what became of a message, for each client of a process, and the reports about it."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal, Protocol, get_args
from urllib.parse import urlencode

from msgspec import Struct

from aphlict.core.endings import EndedConnection
from aphlict.core.history import Entry
from aphlict.core.metrics import Cause
from aphlict.core.subscriptions import Subscriber

TRACE_PATH = "/trace"
MAX_LISTED = 500  # connections in a report
MAX_SHOWN = 5  # of each code, without `connections` and `user`: a rare one must not be hidden by the others

# Why a client has the message or not. `seconds` of its ConnectionReport: how long after the message it subscribed
# (connected_later), took it at the latest from its send buffer (written), or ended (negative: before the message).
Code = Literal[
    "written",  # to its socket
    "replayed",  # it subscribed later, and received the message by a replay, or had it before
    "waiting",  # in its send buffer: it does not read fast enough
    "queued",  # its fan-out is not complete
    "connected_later",
    "not_subscribed",  # to a channel of the message
    "token_without_channel",  # not subscribed, and its token allows none of the channels
    "other_instance",
    "poll_answered",  # its last poll was answered before the message, and it has not polled again
    # It has ended before the message was written to it:
    "client_left",
    "timed_out",
    "dropped_slow",
    "dropped_limit",
    "token_ended",
    "resume_required",
    "server_stopped",
    "connection_error",
]
CODES: tuple[Code, ...] = get_args(Code)
SERVED: frozenset[Code] = frozenset({"written", "replayed"})
ABSENT: frozenset[Code] = frozenset({"not_subscribed", "token_without_channel", "other_instance"})
CODE_OF_CAUSE: Mapping[Cause, Code] = {
    "client": "client_left",
    "timeout": "timed_out",
    "slow": "dropped_slow",
    "limit": "dropped_limit",
    "token": "token_ended",
    "gap": "resume_required",
    "shutdown": "server_stopped",
    "error": "connection_error",
}
# About a message, and about a node.
MessageCode = Literal["found", "duplicate", "other_channel", "evicted", "unknown"]
NodeCode = Literal["responded", "node_unreachable", "node_without_trace", "message_missing", "process_silent"]


class TraceQuery(Struct, frozen=True, omit_defaults=True, rename={"unique_id": "id"}):
    """What to trace: a message, or the last ones on a channel; for all clients or those of a user.

    `connections`: list every client.
    """

    unique_id: str = ""
    channel: str = ""
    user: str = ""
    instance: str = ""
    connections: bool = False

    @property
    def max_of_code(self) -> int:
        """How many connections with the same code are listed."""
        return MAX_LISTED if self.connections or self.user else MAX_SHOWN

    def target(self) -> str:
        """Return the target of a request for it."""
        values = {"id": self.unique_id, "channel": self.channel, "user": self.user, "instance": self.instance}
        fields = {name: value for name, value in values.items() if value}
        return f"{TRACE_PATH}?{urlencode({**fields, **({'connections': '1'} if self.connections else {})})}"


class MessageReport(Struct, rename={"unique_id": "uniqueID"}):
    """One message at one node. Times are Unix times.

    `origin` and `number`: which start of a node accepted it from its publisher; `is_own`: this one; `copies`: those
    of other nodes to which it was published too. `repeats`: how often it was published again, which was not
    delivered. `clients`: their number by code. `delivered_at`: when it had been passed to the last of those that were
    subscribed, each of which had it written to its socket then, or waiting. `delayed`: how many of those have taken
    it since, after it had waited, all of them until `taken_at`.
    """

    instance: str
    unique_id: str
    channels: tuple[str, ...]
    at: float
    origin: str
    number: int
    is_own: bool = False
    origin_node: str = ""
    copies: tuple[tuple[str, int], ...] = ()
    repeats: int = 0
    repeated_at: float = 0.0
    delivered_at: float = 0.0
    delayed: int = 0
    taken_at: float = 0.0
    traceparent: str = ""
    clients: dict[str, int] = {}


class ConnectionReport(Struct):
    """One client. `code`: of the message that is traced; without one "open", or why it has ended.

    `channels`: the first of `channel_count`. `ended_at`: Unix time. `waiting_bytes`: in its send buffer.
    """

    number: int
    pid: int
    address: str
    transport: str
    instance: str
    channels: tuple[str, ...]
    channel_count: int
    code: str
    user: str | None = None
    seconds: float | None = None
    ended_at: float | None = None
    waiting_bytes: int = 0


class ProcessReport(Struct):
    """What one process knows. `history_from`: the time of its oldest message, or of its start if nothing was evicted
    since. `omitted`: connections beyond MAX_LISTED. `is_evicted`: the message is known to have been evicted."""

    pid: int
    started: float
    history_from: float
    messages: list[MessageReport] = []
    instances: list[str] = []  # other ones that have a message with this uniqueID
    connections: list[ConnectionReport] = []
    omitted: int = 0
    is_evicted: bool = False


class DeliveryOutcome(Struct, frozen=True):
    """What became of a message for one client."""

    code: Code
    seconds: float | None = None


class ChannelGrant(Protocol):
    """What a token allows."""

    def allows(self, channel: str, /) -> bool:
        """Whether its client may subscribe to a channel."""


_WITHOUT_TIME: Mapping[Code, DeliveryOutcome] = {code: DeliveryOutcome(code) for code in CODES}
WAITING = _WITHOUT_TIME["waiting"]


def judge(
    entry: Entry,
    channels: Collection[str],
    subscriber: Subscriber,
    grant: ChannelGrant | None,
    time_of: Callable[[Entry, int], float],
) -> DeliveryOutcome:
    """Find out whether an open connection has a message. `channels`: those of the message that count.

    `grant`: that of its token, if it has one; `time_of` returns when a sequence after the message was reached.
    """
    if subscriber.instance.name != entry.message.instance:
        return _WITHOUT_TIME["other_instance"]
    subscriptions = subscriber.subscriptions
    since = [subscriptions[name] for name in channels if name in subscriptions]
    if not since:
        is_forbidden = grant is not None and not any(map(grant.allows, channels))
        return _WITHOUT_TIME["token_without_channel" if is_forbidden else "not_subscribed"]
    if min(since) < entry.sequence:
        return _WITHOUT_TIME["written"]
    if is_replayed(entry, since, subscriber.replayed):
        return _WITHOUT_TIME["replayed"]
    return DeliveryOutcome("connected_later", time_of(entry, min(since)) - entry.at)


def judge_ended(
    entry: Entry,
    channels: Collection[str],
    ended: EndedConnection,
    time_of: Callable[[Entry, int], float],
) -> DeliveryOutcome:
    """Find out whether a connection that has ended received a message."""
    seconds = ended.at - entry.at
    if ended.instance != entry.message.instance:
        return DeliveryOutcome("other_instance", seconds)
    since = [ended.channels[name] for name in channels if name in ended.channels]
    if not since:
        return DeliveryOutcome("not_subscribed", seconds)
    is_late = min(since) >= entry.sequence
    if is_late and not is_replayed(entry, since, ended.replayed):
        return DeliveryOutcome("connected_later", time_of(entry, min(since)) - entry.at)
    if entry.sequence <= ended.written_until:
        return _WITHOUT_TIME["replayed" if is_late else "written"]
    return DeliveryOutcome(code_of(ended), seconds)


def code_of(ended: EndedConnection) -> Code:
    """Return why a connection has ended."""
    return "poll_answered" if ended.is_answered and ended.cause == "client" else CODE_OF_CAUSE[ended.cause]


def is_replayed(entry: Entry, since: Iterable[int], replayed: range) -> bool:
    """Whether a replay covers a message, for a client that subscribed to its channels at these sequences."""
    return entry.sequence in replayed and min(since) < replayed.stop


class NodeReport(Struct):
    """What a node knows: all of its processes. `address`: that of a peer; `fingerprint` is unknown where it did not
    respond, and `error` says why. `code` is process_silent if some of its `processes` did not respond.

    `queued`: the message waits at the asked node to be sent to this one.
    """

    code: NodeCode = "responded"
    fingerprint: str = ""
    address: str = ""
    started: float = 0.0
    history_from: float = 0.0
    processes: int = 0
    silent_processes: int = 0
    message: MessageCode = "unknown"
    messages: list[MessageReport] = []
    instances: list[str] = []
    connections: list[ConnectionReport] = []
    omitted: int = 0
    error: str = ""
    error_code: str = ""
    queued: bool = False

    def mark_silent(self, count: int) -> None:
        """Note that so many processes did not respond."""
        if count > 0:
            self.silent_processes = count
            self.code = "process_silent"


class TraceAnswer(Struct):
    """The response to GET /trace. `text` has the findings as sentences."""

    query: TraceQuery
    found: bool
    now: float
    nodes: list[NodeReport]
    text: list[str] = []


def merge_processes(hub: ProcessReport, edges: Iterable[ProcessReport], query: TraceQuery) -> NodeReport:
    """Return the report of a node. Its hub knows most about messages, its edges about clients."""
    reports = [hub, *edges]
    messages = {(each.instance, each.unique_id): each for each in hub.messages}
    for report in reports[1:]:
        for message in report.messages:
            _add(messages.setdefault((message.instance, message.unique_id), message), message)
    known = [each for report in reports for each in report.connections]
    connections = _shorten(known, query)
    merged = sorted(messages.values(), key=lambda message: message.at)
    return NodeReport(
        started=hub.started,
        history_from=hub.history_from,
        processes=len(reports),
        message=_message_code(merged, query, is_evicted=any(report.is_evicted for report in reports)),
        messages=merged,
        instances=sorted({name for report in reports for name in report.instances}),
        connections=connections,
        omitted=sum(report.omitted for report in reports) + len(known) - len(connections),
    )


def _shorten(connections: list[ConnectionReport], query: TraceQuery) -> list[ConnectionReport]:
    """Return as many as are listed."""
    listed, codes = list[ConnectionReport](), Counter[str]()
    for each in connections:
        codes[each.code] += 1
        if codes[each.code] <= query.max_of_code:
            listed.append(each)
    return listed[:MAX_LISTED]


def _add(total: MessageReport, part: MessageReport) -> None:
    if total is not part:
        codes = {**total.clients, **part.clients}
        total.clients = {code: total.clients.get(code, 0) + part.clients.get(code, 0) for code in codes}
        total.delivered_at = max(total.delivered_at, part.delivered_at)
        total.delayed += part.delayed
        total.taken_at = max(total.taken_at, part.taken_at)


def _message_code(messages: list[MessageReport], query: TraceQuery, *, is_evicted: bool) -> MessageCode:
    if not messages:
        return "evicted" if is_evicted else "unknown"
    if query.channel and not any(query.channel in message.channels for message in messages):
        return "other_channel"
    return "duplicate" if query.unique_id and messages[0].repeats else "found"


def answer(query: TraceQuery, nodes: list[NodeReport], now: float) -> TraceAnswer:
    """Return the answer, without its text. A node that lacks a message which others have is marked."""
    has_message = any(node.messages for node in nodes)
    if query.unique_id and has_message:
        for node in nodes:
            if node.code in ("responded", "process_silent") and not node.messages:
                node.code = "message_missing"
    found = has_message if query.unique_id else has_message or any(node.connections for node in nodes)
    return TraceAnswer(query, found, now, nodes)


def count(clients: dict[str, int], code: str, number: int = 1) -> None:
    """Count clients."""
    clients[code] = clients.get(code, 0) + number
