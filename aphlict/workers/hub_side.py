"""The hub's side of the streams: sends each message to every edge, and waits until all have confirmed it."""

import asyncio
import logging
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Raw
from msgspec.msgpack import encode as encode_argument

from aphlict import log_events
from aphlict.core.history import Entry
from aphlict.core.hub import Hub, MessageReceipt
from aphlict.core.message import Message
from aphlict.core.metrics import ProcessTotals, Samples
from aphlict.core.state import HubState, adopt_losses, adopt_numbers, describe_origins
from aphlict.core.stats import SubscriberStats
from aphlict.workers.edge_requests import (
    METRICS,
    STATS,
    Argument,
    EdgeSamples,
    EdgeStats,
    PendingRequests,
    Question,
    Result,
)
from aphlict.workers.ipc import (
    MAX_ROOM,
    Ack,
    EdgeReply,
    EdgeRequest,
    FlowControl,
    HistoryRecord,
    Leave,
    OriginsRecord,
    Publish,
    Record,
    RecordReader,
    Transfer,
    encode,
    pack,
)

log = logging.getLogger(__name__)

SWEEP_INTERVAL = 0.25  # seconds between two calls of EdgePool.sweep
MAX_BUFFER = 64 * 1024 * 1024  # bytes buffered for one edge


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
        self._requests: PendingRequests[EdgeConnection] = PendingRequests()
        self._matched: dict[int, list[int]] = {}
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
        number = self._requests.add(edges, on_confirmed)
        self._matched[number] = [0] * len(accepted)
        for edge in self._joined:
            edge.flow.on_sent(len(accepted))
        self._send_all(Publish(number, [pack(message, at) for message, at in accepted]))
        if not edges:
            self._requests.complete(number)

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

    def ask(
        self, question: Question[Argument, Result], argument: Argument, done: Callable[[list[Result]], None]
    ) -> None:
        """Ask all edges. `done` receives the answers of those that respond in time."""
        if not self._joined:
            done([])
            return
        results: list[Result] = []
        number = self._requests.add(
            set(self._joined),
            lambda: done(results),
            lambda result: results.append(question.decode_result(result)),
            question.timeout,
            is_prompt=question.is_prompt,
        )
        self._send_all(EdgeRequest(number, question.name, Raw(encode_argument(argument))))

    async def collect(self, question: Question[Argument, Result], argument: Argument) -> list[Result]:
        """Ask all edges; return the answers of those that respond in time."""
        results: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self.ask(question, argument, lambda found: None if results.done() else results.set_result(found))
        return await results

    def request_metrics(self, done: Callable[[Samples], None]) -> None:
        """Request the metrics of all edges. `done` receives the sum for those that reply, and of what the others,
        and edges that are gone, had counted."""

        def on_samples(edges: list[EdgeSamples]) -> None:
            for each in edges:
                self._totals.update(each.process, each.samples)
            done(self._totals.total([each.process for each in edges]))

        self.ask(METRICS, None, on_samples)

    @property
    def expected(self) -> int:
        """The number of edges that there should be."""
        return self._expected

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
                self._requests.on_response(number, edge)
            case EdgeReply(number, result, report):
                if report is not None:
                    edge.flow.on_report(*report, time.monotonic())
                self._requests.on_response(number, edge, result)
            case HistoryRecord():
                self._on_history(edge, record)
            case Leave():
                self._joined.discard(edge)

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
        self._requests.on_lost(edge)

    def sweep(self, now: float) -> None:
        """Complete requests without edges that are late, and request the load of busy edges: while publishers are
        rejected, no message asks for it. To be called every SWEEP_INTERVAL."""
        late = 0
        for edges in self._requests.expire(now):
            late += 1
            for edge in edges:
                edge.flow.is_late = True
        if late:
            log.warning(log_events.EDGE_SLOW, late)
        if self.load:
            self.ask(STATS, "", lambda _: None)


def _do_nothing() -> None:
    """Take the place of a callback that nothing needs."""


def total(replies: Sequence[EdgeStats]) -> SubscriberStats:
    """Return the sum of the statistics."""
    return sum((each.figures for each in replies), SubscriberStats())
