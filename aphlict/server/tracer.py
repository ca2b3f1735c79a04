"""Traces of one process: examines its history, its connections and those that have ended, in slices."""

import asyncio
import os
import time
from collections.abc import Collection, Iterator
from itertools import islice
from typing import NamedTuple

from aphlict.core.endings import MAX_CHANNELS, Client, EndedConnection
from aphlict.core.history import MAX_AGE, Entry
from aphlict.core.hub import Hub
from aphlict.core.trace_report import (
    ABSENT,
    CODE_OF_CAUSE,
    MAX_LISTED,
    MAX_SHOWN,
    SERVED,
    WAITING,
    Code,
    ConnectionReport,
    DeliveryOutcome,
    MessageReport,
    ProcessReport,
    TraceQuery,
    count,
    judge,
    judge_ended,
)
from aphlict.server.auth import client_of
from aphlict.server.client_port import WebSocketSession
from aphlict.server.connection import WEBSOCKET, Connection
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.server import Server
from aphlict.server.subscribe_request import HTTPSubscriber
from aphlict.server.websocket_connection import WebSocket

MAX_SLICE = 0.002  # seconds of examining, after which other work of the loop has its turn
SLICE_STEP = 32  # connections between two looks at the clock
MAX_MESSAGES = 5  # the last ones on a channel


class _Subject(NamedTuple):
    """A message that is traced. `payload`: bytes by which its frames and events are recognized."""

    entry: Entry
    channels: Collection[str]
    report: MessageReport
    payload: tuple[bytes, bytes]


class Tracer:
    """Examines one process."""

    def __init__(self, hub: Hub, server: Server) -> None:
        self._hub = hub
        self._server = server

    async def trace(self, query: TraceQuery) -> ProcessReport:
        """Examine this process, over several turns of the loop."""
        examination = _Examination(self._hub, self._server, query)
        until = time.monotonic() + MAX_SLICE
        for _ in examination.run():
            if time.monotonic() > until:
                await asyncio.sleep(0)
                until = time.monotonic() + MAX_SLICE
        return examination.report


class _Examination:
    """One trace."""

    def __init__(self, hub: Hub, server: Server, query: TraceQuery) -> None:
        self._hub = hub
        self._query = query
        self._pid = os.getpid()
        self._now = time.monotonic()
        self._handlers = server.context.poller.handlers()
        self._limit = MAX_LISTED if query.connections or query.user else MAX_SHOWN
        self._ended = server.context.ended
        self._examined: set[int] = set()  # numbers of connections, some of which may end meanwhile
        self._waits: dict[int, bool] = {}  # by id of a frame: whether it is that of the message
        self._frames: list[bytes] = []  # keeps those ids valid
        hub.history.expire(self._now)
        first = next(hub.history.entries(), None)
        started = hub.origins.started
        self.report = ProcessReport(
            self._pid,
            hub.epoch + started,
            hub.epoch + max(started, self._now - MAX_AGE if first is None else first.at),
        )
        self._subjects = [self._subject(entry) for entry in self._select()]

    def run(self) -> Iterator[None]:
        """Examine; yields now and then."""
        for number, connection in enumerate(self._handlers):
            if isinstance(connection, Connection):
                self._examine(connection)
            if number % SLICE_STEP == 0:
                yield
        for number, ended in enumerate(self._ended.snapshot()):
            if self._query.user in ("", ended.client.user) and ended.client.number not in self._examined:
                self._examine_ended(ended)
            if number % SLICE_STEP == 0:
                yield
        self._count_queued()
        self.report.messages = [subject.report for subject in self._subjects]

    # Messages

    def _select(self) -> list[Entry]:
        """Return the entries of the message, or of the last ones on the channel."""
        query, instances = self._query, self._hub.instances
        names = (
            [query.instance]
            if query.instance
            else sorted(instances, key=lambda name: (name != "default", name))
        )
        histories = {name: instances[name].history for name in names if name in instances}
        if query.unique_id:
            found = {name: entry for name, each in histories.items() if (entry := each.get(query.unique_id))}
            self.report.instances = list(found)[1:]
            self.report.is_evicted = not found and any(
                last.unique_id == query.unique_id
                for each in histories.values()
                for last in each.evicted.values()
            )
            return list(found.values())[:1]
        if not query.channel:
            return []
        entries = [entry for each in histories.values() for entry in each.select([query.channel], _any)]
        return sorted(entries, key=lambda entry: entry.sequence)[-MAX_MESSAGES:]

    def _subject(self, entry: Entry) -> _Subject:
        message, epoch, origins = entry.message, self._hub.epoch, self._hub.origins
        origin = origins.get(message.origin)
        repeated = self._hub.repeated.get(message.instance, message.unique_id)
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
        if self._query.channel:
            channels = tuple(name for name in channels if name == self._query.channel)
        lines = message.payload.splitlines()
        return _Subject(entry, channels, report, (message.payload, b"\ndata: ".join(lines)))

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

    def _examine(self, connection: Connection) -> None:
        """Examine a connection, if it subscribes or may. This is done for all of them."""
        session = _session_of(connection)
        subscriber = None if session is None else session.subscriber
        if session is None or subscriber is None:
            return
        grant = session.grant
        if self._query.user and (grant is None or grant.sub != self._query.user):
            return
        self._examined.add(connection.number)
        waiting = [] if connection.write_buffer.size == 0 else list(connection.write_buffer.frames())
        outcome: DeliveryOutcome | None = None
        for subject in self._subjects:
            outcome = judge(subject.entry, subject.channels, subscriber, grant, self._time_of)
            if waiting and outcome.code in SERVED and self._has(waiting, subject):
                outcome = WAITING
            self._count(subject, outcome.code, subscriber.subscriptions)
        code = outcome.code if outcome is not None and self._query.unique_id else "open"
        if self._has_room(subscriber.instance.name, subscriber.subscriptions, code):
            self._list(
                client_of(connection, session.transport, grant),
                *(subscriber.instance.name, subscriber.subscriptions, len(subscriber.subscriptions)),
                code,
                None if outcome is None else outcome.seconds,
                waiting_bytes=sum(map(len, waiting)),
            )

    def _examine_ended(self, ended: EndedConnection) -> None:
        outcome: DeliveryOutcome | None = None
        for subject in self._subjects:
            outcome = judge_ended(subject.entry, subject.channels, ended)
            if outcome.code not in ABSENT and (outcome.seconds or 0.0) > -MAX_AGE:
                self._count(subject, outcome.code, ended.channels)
        is_recent = outcome is not None and (outcome.seconds or 0.0) > -MAX_AGE
        if not (self._query.user or is_recent or not self._query.unique_id):
            return
        code = outcome.code if outcome is not None and self._query.unique_id else CODE_OF_CAUSE[ended.cause]
        if self._has_room(ended.instance, ended.channels, code):
            self._list(
                ended.client,
                *(ended.instance, ended.channels, ended.channel_count),
                code,
                None if outcome is None else outcome.seconds,
                ended_at=self._hub.epoch + ended.at,
            )

    def _count(self, subject: _Subject, code: Code, channels: Collection[str]) -> None:
        """Count a client; one of another instance only if it has subscribed to a channel of that name there."""
        if code != "other_instance" or any(name in channels for name in subject.channels):
            count(subject.report.clients, code)

    def _has_room(self, instance: str, channels: Collection[str], code: str) -> bool:
        """Whether to list a client; one that should be, but has no room, is counted."""
        if not self._is_listed(instance, channels, code):
            return False
        has_room = len(self.report.connections) < self._limit
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
                tuple(islice(channels, MAX_CHANNELS)),
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

    def _has(self, frames: list[bytes], subject: _Subject) -> bool:
        """Whether a message is in one of these frames. Clients share frames: each is searched once."""
        if len(self._subjects) > 1:
            return any(part in frame for frame in frames for part in subject.payload)
        for frame in frames:
            found = self._waits.get(id(frame))
            if found is None:
                self._frames.append(frame)
                found = self._waits[id(frame)] = any(part in frame for part in subject.payload)
            if found:
                return True
        return False

    def _time_of(self, sequence: int) -> float | None:
        entry = next(self._hub.history.entries(sequence - 1), None)
        return None if entry is None or entry.sequence != sequence else entry.at


def _any(_entry: Entry) -> bool:
    return True


def _session_of(connection: Connection) -> WebSocketSession | HTTPSubscriber | None:
    """Return what belongs to the subscription of a client; None for other connections."""
    if isinstance(connection, WebSocket):
        session = connection.session if connection.state is WEBSOCKET else None
        return session if isinstance(session, WebSocketSession) else None
    responder = connection.responder if isinstance(connection, HTTPConnection) else None
    return responder if isinstance(responder, HTTPSubscriber) else None
