"""The messages of a trace: found in the history."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from aphlict.core.endings import Client
from aphlict.core.history import MAX_AGE, Entry
from aphlict.core.hub import Hub
from aphlict.core.trace_report import MessageReport, ProcessReport, TraceQuery

MAX_MESSAGES = 5  # the last ones on a channel


class PollKey(NamedTuple):
    """What the polls of one client have in common; clients behind one address may be alike."""

    address: str
    user: str | None
    instance: str
    channels: frozenset[str]

    @classmethod
    def of(cls, client: Client, instance: str, channels: Iterable[str]) -> "PollKey":
        """Return that of a poll."""
        return cls(client.address, client.user, instance, frozenset(channels))


class TracedMessage(NamedTuple):
    """A message of a trace. `taken`: until when connections had a backlog that may have contained it, by their
    numbers. `polled`: the clients of which a poll was answered with it."""

    entry: Entry
    channels: Collection[str]
    report: MessageReport
    taken: dict[int, float]
    polled: set[PollKey]


def history_from(hub: Hub, now: float) -> float:
    """Return the time since which all messages are known: some are evicted early where a bound is exceeded."""
    known = now - MAX_AGE
    if not hub.history.overflowed:
        return known
    histories = [each.history.entries for each in hub.instances.values()]
    return max([known, *(entries[0].at for entries in histories if entries)])


def find_messages(hub: Hub, query: TraceQuery, report: ProcessReport) -> list[TracedMessage]:
    """Return the message that a query names, or the last ones on its channel; complete the report if there is none,
    or another one with the same uniqueID."""
    return [_trace(hub, query, entry) for entry in _select(hub, query, report)]


def _select(hub: Hub, query: TraceQuery, report: ProcessReport) -> list[Entry]:
    names = (
        [query.instance]
        if query.instance
        else sorted(hub.instances, key=lambda name: (name != "default", name))
    )
    histories = {name: hub.instances[name].history for name in names if name in hub.instances}
    if query.unique_id:
        found = {name: entry for name, each in histories.items() if (entry := each.get(query.unique_id))}
        report.instances = list(found)[1:]
        report.is_evicted = not found and any(
            last.unique_id == query.unique_id for each in histories.values() for last in each.evicted.values()
        )
        return list(found.values())[:1]
    if not query.channel:
        return []
    entries = [entry for each in histories.values() for entry in each.select([query.channel], _any)]
    return sorted(entries, key=lambda entry: entry.sequence)[-MAX_MESSAGES:]


def _any(_entry: Entry) -> bool:
    return True


def _trace(hub: Hub, query: TraceQuery, entry: Entry) -> TracedMessage:
    message, epoch, origins = entry.message, hub.epoch, hub.origins
    origin = origins.get(message.origin)
    repeated = hub.repeated.get(message.instance, message.unique_id)
    report = MessageReport(
        message.instance,
        message.unique_id,
        message.channels,
        epoch + entry.at,
        message.origin,
        message.number,
        is_own=origin is not None and origin is origins.own,
        origin_node="" if origin is None else origin.fingerprint,
        copies=entry.copies,
        repeats=0 if repeated is None else repeated.count,
        repeated_at=0.0 if repeated is None else epoch + repeated.at,
        delivered_at=epoch + message.delivered_at if message.delivered_at else 0.0,
        traceparent=message.traceparent or "",
    )
    channels = message.channels
    if query.channel:
        channels = tuple(name for name in channels if name == query.channel)
    return TracedMessage(entry, channels, report, {}, set())
