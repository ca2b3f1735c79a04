"""Traces of one process: examines its history, its connections and those that have ended, in slices."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from math import inf
from typing import TypeVar

from aphlict.core.endings import Client, EndedConnection, first_channels, written_until
from aphlict.core.history import MAX_AGE, Entry
from aphlict.core.hub import Hub
from aphlict.core.trace_report import (
    ABSENT,
    MAX_LISTED,
    SERVED,
    WAITING,
    ConnectionReport,
    DeliveryOutcome,
    ProcessReport,
    TraceQuery,
    code_of,
    count,
    judge,
    judge_ended,
)
from aphlict.core.traced_message import PollKey, TracedMessage, find_messages, history_from
from aphlict.server.auth import client_of
from aphlict.server.client_port import WebSocketSession
from aphlict.server.connection import WEBSOCKET, Connection
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.poller import EventHandler
from aphlict.server.server import Server
from aphlict.server.subscribe_request import HTTPSubscriber
from aphlict.server.websocket_connection import WebSocket
from aphlict.server.write_buffer import Backlog

MAX_SLICE = 0.002  # seconds of examining, after which other work of the loop has its turn
SLICE_STEP = 32  # connections between two looks at the clock
MAX_FRAMES = 32  # of a send buffer, of which one is a message, the others replies

Item = TypeVar("Item")


class Tracer:
    """Examines one process, for one trace at a time."""

    def __init__(self, hub: Hub, server: Server) -> None:
        self._hub = hub
        self._server = server
        self._lock = asyncio.Lock()

    async def trace(self, query: TraceQuery) -> ProcessReport:
        """Examine this process, over several turns of the loop."""
        async with self._lock:
            examination = _Examination(self._hub, self._server, query)
            await run_in_slices(examination.run())
            return examination.report


class _Examination:
    """One trace."""

    def __init__(self, hub: Hub, server: Server, query: TraceQuery) -> None:
        self._hub = hub
        self._query = query
        self._pid = os.getpid()
        self._now = time.monotonic()
        self._context = server.context
        self._listed: Counter[str] = Counter()  # connections by code
        self._examined: list[int] = []  # numbers of connections, some of which may end meanwhile
        self._polls: dict[PollKey, EndedConnection] = {}  # the last answered poll of each client
        self._times: dict[tuple[str, int], float] = {}
        hub.history.expire(self._now)
        started = hub.origins.started
        self.report = ProcessReport(
            self._pid, hub.epoch + started, hub.epoch + max(started, history_from(hub, self._now))
        )
        self._subjects = find_messages(hub, query, self.report)

    def run(self) -> Iterator[None]:
        """Examine; yields now and then."""
        context = self._context
        yield from _each(tuple(context.backlogs), self._note_backlog)
        yield from _each(context.ended.answered_polls(), self._note_poll)
        yield from _each(context.poller.walk(), self._examine)
        ended = context.ended.snapshot()
        if twice := {each.client.number for each in ended if each.at >= self._now}:
            twice.intersection_update(self._examined)
        yield from _each((each for each in ended if each.client.number not in twice), self._examine_ended)
        yield from _each(self._polls.items(), self._examine_poll)
        self._count_queued()
        self.report.messages = [subject.report for subject in self._subjects]

    def _count_queued(self) -> None:
        """Correct the counts of messages whose fan-out is not complete: which clients have them is not known."""
        for subject in self._subjects:
            instance, clients = subject.entry.message, subject.report.clients
            pending = self._hub.fan_out.pending(self._hub.instance(instance.instance))
            left = sum(each.left for each in pending if each.message is subject.entry.message)
            left = min(left, clients.get("written", 0))
            if left:
                clients["written"] -= left
                count(clients, "queued", left)

    # Clients

    def _note_backlog(self, backlog: Backlog) -> None:
        for subject in self._subjects:
            entry = subject.entry
            if backlog.until >= entry.at and backlog.since <= (entry.message.delivered_at or inf):
                subject.taken[backlog.number] = backlog.until

    def _note_poll(self, poll: EndedConnection) -> None:
        """Report a poll that was answered with a message. The last poll of each client is examined later, unless the
        client polls now."""
        if self._query.user not in ("", poll.client.user):
            return
        key = PollKey.of(poll.client, poll.instance, poll.channels)
        self._polls[key] = poll
        served = [each for each in self._subjects if self._judge_ended(each, poll).code == "written"]
        for subject in served:
            subject.polled.add(key)
        if served:
            self._report_ended(poll, served, lists=bool(self._query.unique_id))

    def _examine_poll(self, item: tuple[PollKey, EndedConnection]) -> None:
        """Examine the last poll of a client that does not poll now."""
        key, poll = item
        subjects = self._without_polled(key)
        if not self._is_reported(subjects):
            self._report_ended(poll, subjects)

    def _examine(self, handler: EventHandler | None) -> None:
        """Examine a connection, if it subscribes or may. This is done for all of them."""
        session = session_of(handler) if isinstance(handler, Connection) else None
        if not isinstance(handler, Connection) or session is None or session.subscriber is None:
            return
        subscriber, grant, transport = session.subscriber, session.grant, session.transport
        if self._query.user and (grant is None or grant.sub != self._query.user):
            return
        self._examined.append(handler.number)
        subjects: Sequence[TracedMessage] = self._subjects
        if transport == "poll":
            client = client_of(handler, transport, grant)
            key = PollKey.of(client, subscriber.instance.name, first_channels(subscriber.subscriptions))
            self._polls.pop(key, None)
            subjects = self._without_polled(key)
            if self._is_reported(subjects):
                return
        buffer = handler.write_buffer
        frames = islice(buffer.frames(), MAX_FRAMES) if buffer.size else ()
        until = written_until(self._hub, subscriber.instance, frames)
        outcome: DeliveryOutcome | None = None
        for subject in subjects:
            outcome = judge(subject.entry, subject.channels, subscriber, grant, self._time_of)
            outcome = self._with_time(subject, handler.number, outcome)
            if outcome.code in SERVED and subject.entry.sequence > until:
                outcome = WAITING
            self._count(subject, outcome, subscriber.subscriptions)
        code = outcome.code if outcome is not None and self._query.unique_id else "open"
        if self._has_room(subscriber.instance.name, subscriber.subscriptions, code):
            self._list(
                client_of(handler, transport, grant),
                *(subscriber.instance.name, first_channels(subscriber.subscriptions)),
                len(subscriber.subscriptions),
                code,
                None if outcome is None else outcome.seconds,
                waiting_bytes=sum(map(len, buffer.frames())),
            )

    def _without_polled(self, key: PollKey) -> list[TracedMessage]:
        """Return the messages that have answered no poll of a client."""
        return [each for each in self._subjects if key not in each.polled]

    def _is_reported(self, left: Sequence[TracedMessage]) -> bool:
        """Whether a client has been reported with a poll, and no message is left for another one."""
        return bool(self._query.unique_id and self._subjects) and not left

    def _examine_ended(self, ended: EndedConnection) -> None:
        if self._query.user in ("", ended.client.user):
            self._report_ended(ended, self._subjects)

    def _report_ended(
        self, ended: EndedConnection, subjects: Sequence[TracedMessage], *, lists: bool = True
    ) -> None:
        outcome, is_recent = None, False
        for subject in subjects:
            outcome = self._judge_ended(subject, ended)
            is_recent = ended.at > subject.entry.at - MAX_AGE
            outcome = self._with_time(subject, ended.client.number, outcome)
            if outcome.code not in ABSENT and is_recent:
                self._count(subject, outcome, ended.channels)
        if not lists or not (self._query.user or is_recent or not self._query.unique_id):
            return
        code = outcome.code if outcome is not None and self._query.unique_id else code_of(ended)
        if self._has_room(ended.instance, ended.channels, code):
            self._list(
                ended.client,
                *(ended.instance, ended.channels, ended.channel_count),
                code,
                None if outcome is None else outcome.seconds,
                ended_at=self._hub.epoch + ended.at,
            )

    def _judge_ended(self, subject: TracedMessage, ended: EndedConnection) -> DeliveryOutcome:
        return judge_ended(subject.entry, subject.channels, ended, self._time_of)

    def _with_time(self, subject: TracedMessage, number: int, outcome: DeliveryOutcome) -> DeliveryOutcome:
        """Add to `written` when a client that had a backlog took the message."""
        if outcome.code != "written" or (until := subject.taken.get(number)) is None:
            return outcome
        return DeliveryOutcome("written", until - subject.entry.at)

    def _time_of(self, entry: Entry, sequence: int) -> float:
        """Return a time at which a later sequence had been reached: that of the last message until then."""
        key = entry.message.instance, sequence
        if key not in self._times:
            last = None if entry.history is None else entry.history.last_until(sequence)
            self._times[key] = entry.at if last is None else last.at
        return max(entry.at, self._times[key])

    def _count(self, subject: TracedMessage, outcome: DeliveryOutcome, channels: Collection[str]) -> None:
        """Count a client; one of another instance only if it has subscribed to a channel of that name there."""
        code, report, seconds = outcome.code, subject.report, outcome.seconds
        if code != "other_instance" or any(name in channels for name in subject.channels):
            count(report.clients, code)
        if code == "written" and seconds is not None:
            report.delayed += 1
            report.taken_at = max(report.taken_at, report.at + seconds)

    def _has_room(self, instance: str, channels: Collection[str], code: str) -> bool:
        """Whether to list a client; one that should be, but has no room, is counted."""
        if not self._is_listed(instance, channels, code):
            return False
        self._listed[code] += 1
        has_room = len(self.report.connections) < MAX_LISTED and self._listed[code] <= self._query.max_of_code
        self.report.omitted += not has_room
        return has_room

    def _list(
        self,
        client: Client,
        instance: str,
        channels: Collection[str],
        channel_count: int,
        code: str,
        seconds: float | None,
        *,
        ended_at: float | None = None,
        waiting_bytes: int = 0,
    ) -> None:
        self.report.connections.append(
            ConnectionReport(
                *(client.number, self._pid, client.address, client.transport),
                instance,
                tuple(channels),
                channel_count,
                code,
                client.user,
                None if seconds is None or not self._query.unique_id else round(seconds, 3),
                None if ended_at is None else round(ended_at, 3),
                waiting_bytes,
            )
        )

    def _is_listed(self, instance: str, channels: Collection[str], code: str) -> bool:
        """Whether to list a client: all of a user; or those that subscribed, if they were not served or all are
        wanted."""
        query = self._query
        if query.user:
            return query.instance in ("", instance) or bool(query.unique_id)
        if query.unique_id and not self._subjects:
            return False
        if query.unique_id:
            if code in SERVED or code in ABSENT:
                return query.connections if code in SERVED else self._is_misplaced(code, channels)
            return True
        return query.connections and query.instance in ("", instance) and query.channel in channels

    def _is_misplaced(self, code: str, channels: Collection[str]) -> bool:
        """Whether a client has subscribed to a channel of that name, but in another instance."""
        return code == "other_instance" and any(
            name in channels for each in self._subjects for name in each.channels
        )


async def run_in_slices(steps: Iterator[None]) -> None:
    """Take all steps, for MAX_SLICE in each turn of the loop."""
    until = time.monotonic() + MAX_SLICE
    for _ in steps:
        if time.monotonic() > until:
            await asyncio.sleep(0)
            until = time.monotonic() + MAX_SLICE


def _each(items: Iterable[Item], examine: Callable[[Item], None]) -> Iterator[None]:
    """Examine all items; yields now and then."""
    for number, item in enumerate(items):
        examine(item)
        if number % SLICE_STEP == 0:
            yield


def session_of(connection: Connection) -> WebSocketSession | HTTPSubscriber | None:
    """Return what belongs to the subscription of a client; None for other connections."""
    if isinstance(connection, WebSocket):
        session = connection.session if connection.state is WEBSOCKET else None
        return session if isinstance(session, WebSocketSession) else None
    responder = connection.responder if isinstance(connection, HTTPConnection) else None
    return responder if isinstance(responder, HTTPSubscriber) else None
