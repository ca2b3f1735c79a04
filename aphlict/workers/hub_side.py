"""The hub's side: every message goes once to each edge, and an answer waits for all of them."""

import asyncio
import itertools
import logging
import math
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from aphlict.core.history import Entry, HistoryStore
from aphlict.core.hub import Hub, Receipt
from aphlict.core.message import Message
from aphlict.core.stats import SubscriberStats
from aphlict.workers.ipc import (
    MAX_ROOM,
    Ack,
    Flow,
    HistoryRecord,
    Leave,
    Publish,
    Record,
    RecordReader,
    StatsReply,
    StatsRequest,
    Transfer,
    encode,
    pack,
)

log = logging.getLogger(__name__)

ACK_TIMEOUT = 1.0  # seconds that edges have to confirm: publishers wait for 2
SWEEP_INTERVAL = 0.25  # seconds between two calls of EdgePool.sweep
MAX_BUFFER = 64 * 1024 * 1024  # bytes that may wait for one edge


class _Pending:
    """What is answered once all edges have confirmed. `done` is called once."""

    def __init__(self, edges: set["EdgeConnection"], done: Callable[[], None]) -> None:
        self.since = time.monotonic()
        self.edges = edges
        self.done = done


class EdgeConnection(asyncio.Protocol):
    """The stream to one edge."""

    def __init__(self, distribution: "EdgePool") -> None:
        self._distribution = distribution
        self._reader = RecordReader()
        self._transport: asyncio.Transport | None = None
        self._transfer: Transfer | None = None
        self.flow = Flow()
        self.known: set[tuple[str, str]] = set()  # messages that the edge has, while it joins

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's interface: refuses who is not a process of this server's user."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not _is_ours(transport.get_extra_info("socket")):
            transport.abort()

    def pause_writing(self) -> None:
        """Part of asyncio's interface."""
        if self._transfer is not None:
            self._transfer.pause()

    def resume_writing(self) -> None:
        """Part of asyncio's interface."""
        if self._transfer is not None:
            self._transfer.resume()

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's interface."""
        for record in self._reader.feed(data):
            self._distribution.on_record(self, record)

    def connection_lost(self, _error: Exception | None) -> None:
        """Part of asyncio's interface."""
        self._distribution.on_lost(self)

    def write(self, data: bytes) -> None:
        """Send; an edge that does not read is let go, and joins again when it can."""
        assert self._transport is not None
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_BUFFER:
            log.error("an edge does not read what it is sent: it has to join again")
            self._transport.abort()

    def hand_over(self, archive: HistoryStore, on_done: Callable[[], None]) -> None:
        """Send what an archive keeps and this edge has not, for as long as that takes."""
        assert self._transport is not None
        known = self.known

        def is_missing(entry: Entry) -> bool:
            return (entry.message.instance, entry.message.unique_id) not in known

        self._transfer = Transfer(self._transport, archive, is_missing, on_done)
        self._transfer.start()


def _is_ours(sock: socket.socket) -> bool:
    """Whether the other end runs as the same user (SO_PEERCRED, unix(7)): abstract names are open to all."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", data)
    return bool(uid == os.geteuid())


class EdgePool:
    """All edges of a hub; it expects so many."""

    def __init__(self, hub: Hub, expected: int) -> None:
        self._hub = hub
        self._expected = expected
        self._joined: set[EdgeConnection] = set()
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._matched: dict[int, list[int]] = {}
        self._told: dict[int, list[StatsReply]] = {}
        self._server: asyncio.Server | None = None
        self._whole = asyncio.Event()

    async def start(self, listener: socket.socket) -> None:
        """Let edges join on a listening Unix socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: EdgeConnection(self), sock=listener)

    async def until_whole(self, patience: float) -> None:
        """Wait until all edges have joined, or for so many seconds: what is published without them has a receipt
        that says nobody got it."""
        with suppress(asyncio.TimeoutError):  # a name of its own until Python 3.11
            await asyncio.wait_for(self._whole.wait(), patience)

    @property
    def load(self) -> float:
        """That of the edge which has most to do."""
        return max((edge.flow.load for edge in self._joined), default=0.0)

    def room(self, now: float) -> int:
        """How many messages may be published in a row, before the edges have to report their load again."""
        return min((edge.flow.room(now) for edge in self._joined), default=MAX_ROOM)

    def close(self) -> None:
        """Let no more edges join."""
        if self._server is not None:
            self._server.close()

    def publish(
        self,
        messages: Sequence[Message],
        now: float,
        done: Callable[[list[Receipt]], None],
        *,
        waits_for_late: bool = True,
    ) -> None:
        """Publish messages on the hub and all edges; `done` gets the receipts once every edge has the messages."""
        receipts = [self._hub.publish(message, now) for message in messages]
        fresh = [place for place, receipt in enumerate(receipts) if not receipt.duplicate]
        if not fresh or not self._joined:
            done(receipts)
            return

        def on_confirmed() -> None:
            for place, matched in zip(fresh, self._matched.pop(number), strict=True):
                receipts[place] = Receipt(receipts[place].unique_id, matched)
            done(receipts)

        edges = {edge for edge in self._joined if waits_for_late or not edge.flow.is_late}
        number = self._expect(edges, on_confirmed)
        self._matched[number] = [0] * len(fresh)
        for edge in self._joined:
            edge.flow.on_sent(len(fresh))
        self._send_all(Publish(number, [pack(messages[place], now) for place in fresh]))
        if not edges:
            self._pending.pop(number).done()

    def ask(self, instance: str, done: Callable[[list[StatsReply]], None]) -> None:
        """Ask all edges how they are."""
        if not self._joined:
            done([])
            return
        number = self._expect(set(self._joined), lambda: done(self._told.pop(number)))
        self._told[number] = []
        self._send_all(StatsRequest(number, instance))

    def _expect(self, edges: set[EdgeConnection], done: Callable[[], None]) -> int:
        number = next(self._numbers)
        self._pending[number] = _Pending(edges, done)
        return number

    def _send_all(self, record: Record) -> None:
        data = encode(record)
        for edge in tuple(self._joined):
            edge.write(data)

    def on_record(self, edge: EdgeConnection, record: Record) -> None:
        """Act on what an edge says."""
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
                if number in self._told:
                    self._told[number].append(record)
                self._settle(number, edge)
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
        """Learn from an edge what this hub does not know: it may be a new one after an accident."""
        now = time.monotonic()
        unknown = [packed for packed in record.messages if self._hub.restore(packed.unpack(), packed.at, now)]
        if unknown:
            self._send_all(Publish(0, unknown))
        edge.known.update((packed.instance, packed.unique_id) for packed in record.messages)
        if record.evictions is not None:
            self._hub.adopt_evictions(record.evictions, -math.inf)
            self._hub.history.expire(now)  # an edge may have dropped that already
            edge.hand_over(self._hub.history, lambda: self._join(edge))

    def _join(self, edge: EdgeConnection) -> None:
        """Count an edge that has all up to now; what is published from now on is sent to it."""
        edge.write(encode(HistoryRecord([], self._hub.evictions())))
        edge.known.clear()
        self._joined.add(edge)
        log.info("an edge has joined: %d serve", len(self._joined))
        if len(self._joined) >= self._expected:
            self._whole.set()

    def on_lost(self, edge: EdgeConnection) -> None:
        """Go on without an edge."""
        if edge in self._joined:
            self._joined.discard(edge)
            log.warning("an edge is gone: %d serve", len(self._joined))
        for number in list(self._pending):
            self._settle(number, edge)

    def sweep(self, now: float) -> None:
        """Answer for edges that take too long, and ask those that are busy how they are now: while publishers are
        turned away nobody else does. To be called every quarter of a second."""
        late = [number for number, pending in self._pending.items() if now > pending.since + ACK_TIMEOUT]
        if late:
            log.warning("an edge is slow: %d answers do not wait for it", len(late))
        for number in late:
            pending = self._pending.pop(number)
            for edge in pending.edges:
                edge.flow.is_late = True
            pending.done()
        if self.load:
            self.ask("", lambda _: None)


def total(told: Sequence[StatsReply]) -> SubscriberStats:
    """The figures of all edges together."""
    return sum((each.figures for each in told), SubscriberStats())
