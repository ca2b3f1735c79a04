"""The findings of a trace as sentences, for somebody who is on call."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping

from aphlict.core.trace_report import (
    CODES,
    SERVED,
    ConnectionReport,
    MessageReport,
    NodeReport,
    TraceAnswer,
    TraceQuery,
)

MAX_NAMES = 8  # channels in a sentence
EARLIEST_SECONDS = 1.0  # clocks of nodes may differ by this without a remark

# After "N clients:", of one message.
COUNTED: Mapping[str, str] = {
    "waiting": "reading too slowly; the message waits in the send buffer",
    "queued": "still to be served; the fan-out of the message is not complete",
    "connected_later": "subscribed after the message, and not resumed from before it",
    "not_subscribed": "in the same instance, but not subscribed to a channel of the message, or not any more",
    "token_without_channel": "not subscribed, with a token that allows no channel of the message",
    "other_instance": "subscribed to the channel, but in another instance",
    "poll_answered": "between two polls; the last one was answered before the message",
    "client_left": "gone before the message; the connection was closed by the client, or lost",
    "timed_out": "disconnected before the message, after silence for ping.timeout",
    "dropped_slow": "disconnected before the message was written, for reading too slowly (limits.send_buffer)",
    "dropped_limit": "disconnected before the message, because of limits.subscriptions.total",
    "token_ended": "disconnected before the message, as the token had expired, or its key was removed",
    "resume_required": "disconnected before the message, to resume, as this node had missed messages",
    "server_stopped": "disconnected before the message, as the process was stopping",
    "connection_error": "disconnected before the message, because of an error of the connection",
}
# After "connection N of ADDRESS": of one client.
SINGLE: Mapping[str, str] = {
    "open": "is connected",
    "written": "received it: the system accepted it for its socket",
    "replayed": "has it from a replay, or had it before",
    "waiting": "does not read fast enough: the message waits in its send buffer",
    "queued": "is still to be served",
    "connected_later": "subscribed after the message, and did not resume from before it",
    "not_subscribed": "is not subscribed to a channel of the message (any more)",
    "token_without_channel": "is not subscribed, and its token does not allow the channel",
    "other_instance": "is in another instance",
    "poll_answered": "has not polled again since its last poll was answered",
    "client_left": "closed the connection, or lost it",
    "timed_out": "was silent for longer than ping.timeout, and was disconnected",
    "dropped_slow": "was dropped for slowness (limits.send_buffer)",
    "dropped_limit": "was disconnected because of limits.subscriptions.total",
    "token_ended": "was disconnected, as its token had expired or its key was removed",
    "resume_required": "was disconnected, as the node had missed messages",
    "server_stopped": "was disconnected, as its process was stopping",
    "connection_error": "was disconnected because of an error",
}


def describe_trace(answer: TraceAnswer) -> list[str]:
    """Return the sentences; lines that begin with spaces belong to the one before."""
    return [*_introduce(answer), *(line for node in answer.nodes for line in _describe_node(node, answer))]


def _introduce(answer: TraceAnswer) -> Iterator[str]:
    query = answer.query
    messages = [message for node in answer.nodes for message in node.messages]
    if not query.unique_id:
        about = f"on the channel {query.channel}" if query.channel else f"of the user {query.user}"
        yield f"Nothing is known {about}." if not answer.found else f"What is known {about}:"
        return
    if not messages:
        yield from _describe_unknown(answer)
        return
    first = messages[0]
    yield f"Message {first.unique_id} in the instance {first.instance}, on {_channels(first.channels)}."
    others = sorted({name for node in answer.nodes for name in node.instances})
    if others:
        yield f"The instances {', '.join(others)} have other messages with this uniqueID: use --instance."
    if query.channel and query.channel not in first.channels:
        yield f"It was not published to the channel {query.channel}, so subscribers of that did not receive it."


def _describe_unknown(answer: TraceAnswer) -> Iterator[str]:
    query = answer.query
    where = f" in the instance {query.instance}" if query.instance else ""
    if any(node.message == "evicted" for node in answer.nodes):
        yield f"Message {query.unique_id} was published, and is too old: the history has evicted it."
        return
    since = [node.history_from for node in answer.nodes if node.history_from]
    yield f"No node that responded knows a message {query.unique_id}{where}."
    if since:
        yield (
            f"It was not published since {clock(min(since))}, or under another uniqueID. Before that it would have"
            " been evicted from the history."
        )


def _describe_node(node: NodeReport, answer: TraceAnswer) -> Iterator[str]:
    name = _name(node)
    if node.code == "node_unreachable":
        yield f"{name} is not reachable: {node.error}. Its clients are not included."
    elif node.code == "node_without_trace":
        yield f"{name} cannot trace: it is an older version, or a Node.js server. Its clients are not included."
    elif node.code == "message_missing":
        yield from _describe_missing(node, answer)
    if node.queued:
        yield f"  The message waits to be sent to {node.address}."
    if node.silent_processes:
        yield f"  {node.silent_processes} of its processes did not respond: their clients are not included."
    for message in node.messages:
        yield from _describe_message(message, node, answer)
    yield from (f"  {_describe_connection(each, answer.query)}" for each in node.connections)
    if node.omitted:
        yield f"  … and {node.omitted:,} more"


def _describe_missing(node: NodeReport, answer: TraceAnswer) -> Iterator[str]:
    at = min(message.at for each in answer.nodes for message in each.messages)
    if node.started > at + EARLIEST_SECONDS:
        yield f"{_name(node)} does not have it: that node started later, at {clock(node.started)}."
    else:
        yield f"{_name(node)} does not have it: none of its clients received it."


def _describe_message(message: MessageReport, node: NodeReport, answer: TraceAnswer) -> Iterator[str]:
    name = "" if answer.query.unique_id else f" {message.unique_id}"
    how = "from a publisher" if message.is_own else f"from the node {message.origin_node or message.origin}"
    yield f"{_name(node)} received{name or ' it'} at {clock(message.at)} {how}."
    if message.traceparent:
        yield f"  Its traceparent is {message.traceparent}."
    if message.repeats:
        yield (
            f"  It was published again under the same uniqueID, {_times(message.repeats)}, for the last time at"
            f" {clock(message.repeated_at)}: duplicates are not delivered, whatever they contain."
        )
    if message.copies:
        yield "  It was published to several nodes, and delivered once."
    yield from (f"  {line}" for line in _describe_clients(message, node, answer.query))


def _describe_clients(message: MessageReport, node: NodeReport, query: TraceQuery) -> Iterator[str]:
    clients, whose = message.clients, f" of the user {query.user}" if query.user else ""
    written = clients.get("written", 0)
    if query.user and not clients and not node.connections:
        yield f"No connection of the user {query.user} is known."
    elif written:
        last = message.delivered_at - message.at
        when = f", the last one after {last:.3f} s" if message.delivered_at else ""
        yield f"It was written to {_count(written, 'socket')}{whose}{when}."
    else:
        yield f"It was written to no socket{whose}."
    if message.delayed:
        waited = message.taken_at - message.at
        yield (
            f"{_count(message.delayed, 'client')} of these read slowly: it waited in the send buffer, for"
            f" {waited:.3f} s at most."
        )
    if replayed := clients.get("replayed", 0):
        yield f"{_count(replayed, 'client')} resumed later, and {_have(replayed)} it."
    listed = Counter(each.code for each in node.connections) if query.unique_id else Counter[str]()
    for code in CODES:
        number = clients.get(code, 0)
        if code not in SERVED and number != listed[code]:  # otherwise each of them has a line of its own
            yield f"{_count(number, 'client')}: {COUNTED[code]} [{code}]."


def _describe_connection(each: ConnectionReport, query: TraceQuery) -> str:
    user = f", user {each.user}" if each.user else ""
    subject = f"Connection {each.number} ({each.transport} of {each.address}{user}, process {each.pid})"
    text = f"{subject} {SINGLE[each.code]}{_when(each)}"
    if (
        each.code in ("open", "not_subscribed", "token_without_channel", "other_instance")
        or not query.unique_id
    ):
        names = _channels(each.channels, each.channel_count) if each.channels else "no channel"
        text += f"; instance {each.instance}, {names}"
    return f"{text} [{each.code}]."


def _when(each: ConnectionReport) -> str:
    parts = []
    if each.seconds is not None and each.code == "connected_later":
        parts.append(f", at least {each.seconds:.1f} s later")
    elif each.seconds is not None and each.code == "written":
        parts.append(f" {each.seconds:.1f} s after the message, at the latest")
    elif each.seconds is not None and each.code not in SERVED:
        side = "before" if each.seconds < 0 else "after"
        parts.append(f", {abs(each.seconds):.1f} s {side} the message")
    elif each.ended_at is not None:
        parts.append(f", ended at {clock(each.ended_at)}")
    if each.waiting_bytes:
        parts.append(f", {each.waiting_bytes:,} bytes wait")
    return "".join(parts)


def _name(node: NodeReport) -> str:
    name = f"Node {node.address}" if node.address else "This node"
    return f"{name} ({node.fingerprint})" if node.fingerprint else name


def _channels(names: tuple[str, ...], number: int | None = None) -> str:
    count = len(names) if number is None else number
    more = count - min(len(names), MAX_NAMES)
    listed = ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more else "")
    return f"the channel{'s' if count != 1 else ''} {listed}" if names else "no channel"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"


def clock(at: float) -> str:
    """Return a Unix time as in the log."""
    local = time.localtime(at)
    return (
        f"{time.strftime('%Y-%m-%d %H:%M:%S', local)}.{int(at % 1 * 1000):03d} {time.strftime('%z', local)}"
    )
