"""An edge's side of the stream: publishes the hub's messages here, and keeps a copy of the history."""

import asyncio
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from aphlict import log_events
from aphlict.core.hub import Hub
from aphlict.core.message import Message
from aphlict.core.state import HubState, adopt_losses, adopt_numbers
from aphlict.workers.edge_requests import STATS, Answer, EdgeStats
from aphlict.workers.ipc import (
    Ack,
    EdgeReply,
    EdgeRequest,
    HistoryRecord,
    Leave,
    OriginsRecord,
    PackedMessage,
    Publish,
    Record,
    RecordReader,
    Transfer,
    encode,
)

log = logging.getLogger(__name__)

RETRY_INTERVAL = 0.05  # seconds between two attempts to connect to the hub
MAX_TURN = 0.01  # seconds of applying records after which other work of the loop has its turn
ERROR_RETRY_INTERVAL = 1.0  # seconds until this edge joins again after an internal error
NO_ANSWERS: Mapping[str, Answer] = {}


class NoForwarder:
    """The forwarder of an edge: its hub process forwards messages to the peers."""

    def forward(self, _message: Message, /) -> None:
        """Do nothing."""


class HubConnection(asyncio.Protocol):
    """One stream to the hub: the protocol of an asyncio transport. `HubConnector` opens the next one.

    `joined` is done when this edge has the history of the hub; `lost` when the stream is closed and every received
    record has been applied. `on_gap` is called if this edge lacks a message that the hub no longer has, or that never
    reached the node: its clients have missed it. `answers` are those to the questions of the hub, by their names.
    """

    def __init__(
        self,
        hub: Hub,
        on_gap: Callable[[], None],
        answers: Mapping[str, Answer] = NO_ANSWERS,
    ) -> None:
        self._hub = hub
        self._answers = {**answers, **dict([STATS.answered_by(self._describe)])}
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_gap = on_gap
        self._reader = RecordReader()
        self._records: deque[Record] = deque()  # received, not yet applied
        self._steps: Iterator[None] | None = None  # while they are being applied
        self._transport: asyncio.Transport | None = None
        self._transfer: Transfer | None = None
        self._is_closed = False
        self.has_failed = False  # an internal error occurred
        loop = asyncio.get_running_loop()
        self.joined: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the history of this edge to the hub."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._transfer = Transfer(transport, self._hub, lambda _entry: True, lambda: None)
        self._transfer.start()

    def pause_writing(self) -> None:
        """Called by asyncio when the write buffer is full."""
        assert self._transfer is not None
        self._transfer.pause()

    def resume_writing(self) -> None:
        """Called by asyncio when the write buffer has been flushed."""
        assert self._transfer is not None
        self._transfer.resume()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio with received bytes."""
        self._records.extend(self._reader.feed(data))
        if self._steps is None:
            self._steps = self._apply_records()
            self._work()

    def connection_lost(self, _error: Exception | None) -> None:
        """Called by asyncio when the stream is closed.

        This edge may have messages of a crashed hub that no other edge has: it is in sync only up to now.
        """
        self._is_closed = True
        self._hub.in_sync_until = min(self._hub.in_sync_until, time.monotonic())
        if self._steps is None:
            self._end()

    def _end(self) -> None:
        if not self.lost.done():  # it is cancelled if this edge stops
            self.lost.set_result(None)

    def leave(self) -> None:
        """Announce that this edge stops, if there is a connection."""
        if self._transport is not None:
            self._send(Leave())

    def close(self) -> None:
        """Close the stream."""
        if self._transport is not None:
            self._transport.abort()

    def _work(self) -> None:
        """Apply records for one turn of the loop; until all are applied, nothing more is read.

        An internal error closes the stream: otherwise the edge would lack a message without noticing. It joins again.
        """
        assert self._steps is not None
        assert self._transport is not None
        until = time.monotonic() + MAX_TURN
        try:
            for _ in self._steps:
                if time.monotonic() > until:
                    self._transport.pause_reading()
                    asyncio.get_running_loop().call_soon(self._work)
                    return
        except Exception:
            log.exception(log_events.RECORD_FAILED)
            self.has_failed = True
            self._records.clear()
            self.close()
        self._steps = None
        self._transport.resume_reading()
        if self._is_closed:
            self._end()

    def _apply_records(self) -> Iterator[None]:
        """Apply the records; yields after each message."""
        while self._records:
            record = self._records.popleft()
            match record:
                case Publish(number, messages):
                    matched: list[int] = []
                    yield from self._publish(messages, matched)
                    if number:
                        self._send(Ack(number, matched, self._hub.load, self._hub.reach))
                case EdgeRequest():
                    self._start_answer(record)
                case HistoryRecord(messages, state, is_last):
                    if state is not None:
                        self._adopt_losses(state, is_joining=True)
                    yield from self._restore(messages)
                    if state is not None and is_last:
                        self._join(state)
                case OriginsRecord(state):
                    self._adopt_losses(state, is_joining=False)
                    self._adopt_numbers(state)

    def _start_answer(self, request: EdgeRequest) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: EdgeRequest) -> None:
        try:
            result = await self._answers[request.name](request.argument)
        except Exception:
            log.exception(log_events.HUB_REQUEST_FAILED, request.name)
        else:
            report = (self._hub.load, self._hub.reach) if request.name == STATS.name else None
            self._send(EdgeReply(request.number, result, report))

    async def _describe(self, instance: str) -> EdgeStats:
        return EdgeStats(os.getpid(), self._hub.subscriber_stats(instance))

    def _publish(self, messages: list[PackedMessage], matched: list[int]) -> Iterator[None]:
        for packed in messages:
            matched.append(self._hub.publish(packed.unpack(), packed.at).matched)
            yield

    def _restore(self, messages: list[PackedMessage]) -> Iterator[None]:
        for packed in messages:
            self._hub.restore(packed.unpack(), packed.at, time.monotonic())
            yield

    def _join(self, state: HubState) -> None:
        """The whole history of the hub has been received."""
        self._adopt_numbers(state)
        if not self._is_closed:
            self._hub.in_sync_until = math.inf
        if not self.joined.done():
            self.joined.set_result(None)

    def _adopt_losses(self, state: HubState, *, is_joining: bool) -> None:
        if adopt_losses(self._hub, state, is_joining=is_joining):
            self._on_gap()

    def _adopt_numbers(self, state: HubState) -> None:
        self._hub.origins.is_complete = state.is_complete
        adopt_numbers(self._hub, state)
        self._hub.sequencer.release(time.monotonic())

    def _send(self, record: Record) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(encode(record))


class HubConnector:
    """Keeps an edge connected to its hub. `up_to_date` is set while it has the hub's history.

    `on_gap` and `answers` as for HubConnection.
    """

    def __init__(
        self,
        hub: Hub,
        address: str,
        on_gap: Callable[[], None],
        answers: Mapping[str, Answer] = NO_ANSWERS,
    ) -> None:
        self.up_to_date = asyncio.Event()
        hub.in_sync_until = time.monotonic()
        self._on_gap = on_gap
        self._answers = answers
        self._hub = hub
        self._address = address
        self._connection: HubConnection | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start, in the running loop."""
        self._task = asyncio.create_task(self._run())

    def leave(self) -> None:
        """Announce the stop to the hub, and stop."""
        if self._connection is not None:
            self._connection.leave()
        self.close()

    def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, connection = await loop.create_unix_connection(self._make_connection, self._address)
            except OSError:
                await asyncio.sleep(RETRY_INTERVAL)
                continue
            await self._serve(connection)
            if connection.has_failed:
                await asyncio.sleep(ERROR_RETRY_INTERVAL)

    def _make_connection(self) -> HubConnection:
        return HubConnection(self._hub, self._on_gap, self._answers)

    async def _serve(self, connection: HubConnection) -> None:
        self._connection = connection
        try:
            await asyncio.wait({connection.joined, connection.lost}, return_when=asyncio.FIRST_COMPLETED)
            if connection.joined.done():
                self.up_to_date.set()
            await connection.lost
        finally:
            self._connection = None
            self.up_to_date.clear()
            connection.close()
