"""The hub's side of the streams: sends each message to every edge, and waits until all have confirmed it."""

import asyncio
import itertools
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from aphlict import log_events
from aphlict.core.history import Entry
from aphlict.core.hub import Hub, MessageReceipt
from aphlict.core.message import Message
from aphlict.core.metrics import ProcessTotals, Samples
from aphlict.core.state import HubState, adopt_losses, adopt_numbers, describe_origins
from aphlict.core.stats import SubscriberStats
from aphlict.core.trace_report import ProcessReport, TraceQuery
from aphlict.workers.ipc import (
    MAX_ROOM,
    Ack,
    FlowControl,
    HistoryRecord,
    Leave,
    MetricsReply,
    MetricsRequest,
    OriginsRecord,
    Publish,
    Record,
    RecordReader,
    StatsReply,
    StatsRequest,
    TraceReply,
    Transfer,
    encode,
    pack,
)
from aphlict.workers.trace_requests import EdgeTraces

log = logging.getLogger(__name__)

ACK_TIMEOUT = 1.0  # seconds that edges have to confirm: publishers wait for 2 s
SWEEP_INTERVAL = 0.25  # seconds between two calls of EdgePool.sweep
MAX_BUFFER = 64 * 1024 * 1024  # bytes buffered for one edge


class _Pending:
    """A request to edges. `done` is called when all of them have responded, or have been given up."""

    def __init__(self, edges: set["EdgeConnection"], done: Callable[[], None]) -> None:
        self.since = time.monotonic()
        self.edges = edges
        self.done = done


class EdgeConnection(asyncio.Protocol):
    """The stream to one edge: the protocol of an asyncio transport."""

    def __init__(self, pool: "EdgePool") -> None:
        self._pool = pool
        self._reader = RecordReader()
        self._transport: asyncio.Transport | None = None
        self._transfer: Transfer | None = None
        self.flow = FlowControl()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close the stream unless the other process runs as the same user."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not _is_same_user(transport.get_extra_info("socket")):
            transport.abort()

    def pause_writing(self) -> None:
        """Called by asyncio when the write buffer is full."""
        if self._transfer is not None:
            self._transfer.pause()

    def resume_writing(self) -> None:
        """Called by asyncio when the write buffer has been flushed."""
        if self._transfer is not None:
            self._transfer.resume()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio with received bytes."""
        for record in self._reader.feed(data):
            self._pool.on_record(self, record)

    def connection_lost(self, _error: Exception | None) -> None:
        """Called by asyncio when the stream is closed."""
        self._pool.on_lost(self)

    def write(self, data: bytes) -> None:
        """Send. Disconnects an edge that does not read; it joins again when it can."""
        assert self._transport is not None
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_BUFFER:
            log.error(log_events.EDGE_NOT_READING)
            self._transport.abort()

    def exchange(self, hub: Hub, state: HubState, on_done: Callable[[], None]) -> None:
        """Adopt the state of the edge, whose whole history has come, and send it the messages that it lacks, over
        several turns of the loop; then call `on_done`."""
        assert self._transport is not None
        adopt_numbers(hub, state)
        hub.sequencer.release(time.monotonic())
        # What this hub's predecessor knew, its edges have.
        hub.origins.is_complete = hub.origins.is_complete or state.is_complete
        version = {each.name: each.number for each in state.origins}

        def is_missing(entry: Entry) -> bool:
            return entry.message.number > version.get(entry.message.origin, 0)

        self._transfer = Transfer(self._transport, hub, is_missing, on_done)
        self._transfer.start()


def _is_same_user(sock: socket.socket) -> bool:
    """SO_PEERCRED, unix(7): every user can connect to an abstract name."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", data)
    return bool(uid == os.geteuid())


class EdgePool:
    """The edges of a hub, `expected` many."""

    def __init__(self, hub: Hub, expected: int) -> None:
        self._hub = hub
        self._expected = expected
        self._joined: set[EdgeConnection] = set()
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._matched: dict[int, list[int]] = {}
        self._replies: dict[int, list[StatsReply]] = {}
        self._traces = EdgeTraces()
        self._replied: dict[int, set[str]] = {}  # processes that have sent their metrics
        self._totals = ProcessTotals()
        self._server: asyncio.Server | None = None
        self._is_complete = asyncio.Event()
        self._accepted: list[tuple[Message, float]] = []  # not yet sent to the edges, with their times
        hub.on_accepted = self._on_accepted
        hub.sequencer.on_contact = hub.sequencer.on_gap = self.send_origins
        self.on_restored: Callable[[], None] = _do_nothing  # called when the history of an edge has come

    async def start(self, listener: socket.socket) -> None:
        """Accept edges on a listening Unix socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: EdgeConnection(self), sock=listener)

    async def wait_until_complete(self, timeout: float) -> None:
        """Wait until all edges have joined, for `timeout` seconds at most.

        The receipts of messages that are published earlier would count no clients.
        """
        with suppress(asyncio.TimeoutError):  # until Python 3.11 not the built-in TimeoutError
            await asyncio.wait_for(self._is_complete.wait(), timeout)

    @property
    def load(self) -> float:
        """The highest load of an edge."""
        return max((edge.flow.load for edge in self._joined), default=0.0)

    def room(self, now: float) -> int:
        """The number of messages that may be published before the edges report their load again."""
        return min((edge.flow.room(now) for edge in self._joined), default=MAX_ROOM)

    def close(self) -> None:
        """Accept no more edges."""
        if self._server is not None:
            self._server.close()

    def publish(
        self,
        messages: Sequence[Message],
        now: float,
        done: Callable[[list[MessageReceipt]], None],
        *,
        waits_for_late: bool = True,
    ) -> None:
        """Publish messages on the hub and all edges. `done` receives the receipts when every edge has confirmed."""
        receipts = [self._hub.publish(message, now) for message in messages]
        accepted, self._accepted = self._accepted, []
        if not accepted or not self._joined:
            done(receipts)
            return
        places = {id(message): place for place, message in enumerate(messages)}

        def on_confirmed() -> None:
            for (message, _), matched in zip(accepted, self._matched.pop(number), strict=True):
                place = places.get(id(message))
                if place is not None and not receipts[place].duplicate:
                    receipts[place] = MessageReceipt(message.unique_id, matched)
            done(receipts)

        edges = {edge for edge in self._joined if waits_for_late or not edge.flow.is_late}
        number = self._expect(edges, on_confirmed)
        self._matched[number] = [0] * len(accepted)
        for edge in self._joined:
            edge.flow.on_sent(len(accepted))
        self._send_all(Publish(number, [pack(message, at) for message, at in accepted]))
        if not edges:
            self._pending.pop(number).done()

    def _on_accepted(self, message: Message, at: float) -> None:
        self._accepted.append((message, at))

    def flush(self) -> None:
        """Send the edges what the hub accepted without `publish`: messages whose turn came later."""
        accepted, self._accepted = self._accepted, []
        if accepted:
            self._send_all(Publish(0, [pack(message, at) for message, at in accepted]))

    def send_origins(self) -> None:
        """Send the edges the version vector of the hub."""
        self.flush()
        self._send_all(OriginsRecord(describe_origins(self._hub)))

    def request_stats(self, instance: str, done: Callable[[list[StatsReply]], None]) -> None:
        """Request the statistics of all edges."""
        if not self._joined:
            done([])
            return
        number = self._expect(set(self._joined), lambda: done(self._replies.pop(number)))
        self._replies[number] = []
        self._send_all(StatsRequest(number, instance))

    def request_metrics(self, done: Callable[[Samples], None]) -> None:
        """Request the metrics of all edges. `done` receives the sum for those that reply, and of what the others,
        and edges that are gone, had counted."""
        if not self._joined:
            done(self._totals.total(()))
            return
        number = self._expect(set(self._joined), lambda: done(self._totals.total(self._replied.pop(number))))
        self._replied[number] = set()
        self._send_all(MetricsRequest(number))

    async def trace(self, query: TraceQuery) -> list[ProcessReport]:
        """Return what the edges report that respond in time."""
        return await self._traces.request(query, self._joined, self._send_all)

    @property
    def expected(self) -> int:
        """The number of edges that there should be."""
        return self._expected

    def _expect(self, edges: set[EdgeConnection], done: Callable[[], None]) -> int:
        number = next(self._numbers)
        self._pending[number] = _Pending(edges, done)
        return number

    def _send_all(self, record: Record) -> None:
        data = encode(record)
        for edge in tuple(self._joined):
            edge.write(data)

    def on_record(self, edge: EdgeConnection, record: Record) -> None:
        """Handle a record from an edge."""
        match record:
            case Ack(number, matched, load, reach):
                edge.flow.on_report(load, reach, time.monotonic(), confirmed=len(matched))
                if number in self._matched:
                    self._matched[number] = [
                        a + b for a, b in zip(self._matched[number], matched, strict=True)
                    ]
                self._settle(number, edge)
            case StatsReply(number, load=load, reach=reach):
                edge.flow.on_report(load, reach, time.monotonic())
                if number in self._replies:
                    self._replies[number].append(record)
                self._settle(number, edge)
            case MetricsReply(number, process, samples):
                self._totals.update(process, samples)
                if number in self._replied:
                    self._replied[number].add(process)
                self._settle(number, edge)
            case TraceReply():
                self._traces.on_reply(edge, record)
            case HistoryRecord():
                self._on_history(edge, record)
            case Leave():
                self._joined.discard(edge)

    def _settle(self, number: int, edge: EdgeConnection) -> None:
        pending = self._pending.get(number)
        if pending is not None:
            pending.edges.discard(edge)
            if not pending.edges:
                del self._pending[number]
                pending.done()

    def _on_history(self, edge: EdgeConnection, record: HistoryRecord) -> None:
        """Restore messages that this hub lacks: it may have replaced a hub that crashed."""
        now = time.monotonic()
        if (
            record.state is not None
            and adopt_losses(self._hub, record.state, is_joining=True)
            and self._joined
        ):
            self._hub.origins.gap_at = now  # the others have missed these messages too
            self.send_origins()
        unknown = [packed for packed in record.messages if self._hub.restore(packed.unpack(), packed.at, now)]
        if unknown:
            self._send_all(Publish(0, unknown))
        if record.state is not None and record.is_last:
            edge.exchange(self._hub, record.state, lambda: self._join(edge))
            self.send_origins()  # others have received messages from this edge, and what came before them
            self._hub.history.expire(now)  # the edge may have evicted these already
            self.on_restored()

    def _join(self, edge: EdgeConnection) -> None:
        """Add an edge that has the whole history; messages that are published from now on are sent to it."""
        self._joined.add(edge)
        log.info(log_events.EDGE_JOINED, len(self._joined), self._expected)
        if len(self._joined) >= self._expected:
            self._is_complete.set()

    def on_lost(self, edge: EdgeConnection) -> None:
        """Remove an edge whose stream is closed."""
        if edge in self._joined:
            self._joined.discard(edge)
            log.warning(log_events.EDGE_LOST, len(self._joined), self._expected)
        self._traces.on_lost(edge)
        for number in list(self._pending):
            self._settle(number, edge)

    def sweep(self, now: float) -> None:
        """Complete requests without edges that are late, and request the load of busy edges: while publishers are
        rejected, no message asks for it. To be called every SWEEP_INTERVAL."""
        late = [number for number, pending in self._pending.items() if now > pending.since + ACK_TIMEOUT]
        if late:
            log.warning(log_events.EDGE_SLOW, len(late))
        for number in late:
            pending = self._pending.pop(number)
            for edge in pending.edges:
                edge.flow.is_late = True
            pending.done()
        if self.load:
            self.request_stats("", lambda _: None)


def _do_nothing() -> None:
    """Take the place of a callback that nothing needs."""


def total(replies: Sequence[StatsReply]) -> SubscriberStats:
    """Return the sum of the statistics."""
    return sum((each.figures for each in replies), SubscriberStats())
