"""An edge's side: takes messages from the hub, and keeps a copy of the history for the time without one."""

import asyncio
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator

from aphlict.core.history import Evictions
from aphlict.core.hub import Hub
from aphlict.core.message import Message
from aphlict.workers.ipc import (
    Ack,
    HistoryRecord,
    Leave,
    PackedMessage,
    Publish,
    Record,
    RecordReader,
    StatsReply,
    StatsRequest,
    Transfer,
    encode,
)

log = logging.getLogger(__name__)

RETRY = 0.05  # seconds between two attempts to reach the hub
MAX_TURN = 0.01  # seconds of applying records after which other work of the loop has its turn
RETRY_AFTER_ERROR = 1.0  # seconds until this edge joins again after an error of its own


class NoForwarder:
    """The forwarder of an edge: its hub process forwards messages to the peers."""

    def forward(self, _message: Message, /) -> None:
        """Do nothing."""


class HubConnection(asyncio.Protocol):
    """One stream to the hub; `HubConnector` makes the next one.

    `joined` is done once this edge has what the hub has, `lost` once the stream is over and all that came is done.
    `complete_until`: this edge has all that was published up to then (monotonic seconds). `on_gap` is called where it
    misses something later, which the hub no longer has: its browsers miss that too.
    """

    def __init__(self, hub: Hub, complete_until: float, on_gap: Callable[[], None]) -> None:
        self._hub = hub
        self.complete_until = complete_until
        self._received_until = complete_until
        self._on_gap = on_gap
        self._reader = RecordReader()
        self._records: deque[Record] = deque()  # that came, and are not done
        self._steps: Iterator[None] | None = None  # while they are being done
        self._transport: asyncio.Transport | None = None
        self._transfer: Transfer | None = None
        self._is_over = False
        self.has_failed = False  # a record could not be done
        loop = asyncio.get_running_loop()
        self.joined: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's interface: tells the hub what this edge has."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._transfer = Transfer(transport, self._hub.history, lambda _entry: True, self._on_transferred)
        self._transfer.start()

    def _on_transferred(self) -> None:
        self._send(HistoryRecord([], self._hub.evictions()))

    def pause_writing(self) -> None:
        """Part of asyncio's interface."""
        assert self._transfer is not None
        self._transfer.pause()

    def resume_writing(self) -> None:
        """Part of asyncio's interface."""
        assert self._transfer is not None
        self._transfer.resume()

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's interface."""
        self._records.extend(self._reader.feed(data))
        if self._steps is None:
            self._steps = self._do_records()
            self._work()

    def connection_lost(self, _error: Exception | None) -> None:
        """Part of asyncio's interface. What came from a hub that died may have come to this edge alone."""
        self._is_over = True
        self._hub.in_sync_until = min(self._hub.in_sync_until, time.monotonic())
        if self._steps is None:
            self._end()

    def _end(self) -> None:
        if not self.lost.done():  # cancelled, where this edge stops
            self.lost.set_result(None)

    def leave(self) -> None:
        """Say that this edge stops, where there is somebody to say it to."""
        if self._transport is not None:
            self._send(Leave())

    def close(self) -> None:
        """End the stream."""
        if self._transport is not None:
            self._transport.abort()

    def _work(self) -> None:
        """Do what came, until other work of the loop has its turn; nothing more is read meanwhile.

        A record that cannot be done ends the stream, or the edge would miss it unnoticed: it joins anew.
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
            log.exception(
                "internal error on a record from the hub, this edge joins again; please report this"
            )
            self.has_failed = True
            self._records.clear()
            self.close()
        self._steps = None
        self._transport.resume_reading()
        if self._is_over:
            self._end()

    def _do_records(self) -> Iterator[None]:
        """Do one record after the other; yields after each message."""
        while self._records:
            match self._records.popleft():
                case Publish(number, messages):
                    matched: list[int] = []
                    yield from self._publish(messages, matched)
                    self.complete_until = self._received_until
                    if number:
                        self._send(Ack(number, matched, self._hub.load, self._hub.reach))
                case StatsRequest(number, instance):
                    hub = self._hub
                    self._send(
                        StatsReply(number, os.getpid(), hub.subscriber_stats(instance), hub.load, hub.reach)
                    )
                case HistoryRecord(messages, evictions):
                    yield from self._publish(messages, [])
                    if evictions is not None:
                        self._join(evictions)

    def _publish(self, messages: list[PackedMessage], matched: list[int]) -> Iterator[None]:
        for packed in messages:
            matched.append(self._hub.publish(packed.unpack(), packed.at).matched)
            self._received_until = max(self._received_until, packed.at)
            yield

    def _join(self, evictions: Evictions) -> None:
        """Be up to date: all that the hub keeps has come."""
        if evictions.latest > self.complete_until:
            self._on_gap()
        self._hub.adopt_evictions(evictions, self.complete_until)
        if not self._is_over:
            self._hub.in_sync_until = math.inf
        self.complete_until = self._received_until = max(self._received_until, evictions.latest)
        if not self.joined.done():
            self.joined.set_result(None)

    def _send(self, record: Record) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(encode(record))


class HubConnector:
    """Keeps an edge linked to its hub. `up_to_date` is set while it is; `on_gap` as of a Link."""

    def __init__(self, hub: Hub, address: str, on_gap: Callable[[], None]) -> None:
        self.up_to_date = asyncio.Event()
        hub.in_sync_until = time.monotonic()
        self._complete_until = -math.inf
        self._on_gap = on_gap
        self._hub = hub
        self._address = address
        self._link: HubConnection | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the running loop."""
        self._task = asyncio.create_task(self._keep())

    def leave(self) -> None:
        """End in good order."""
        if self._link is not None:
            self._link.leave()
        self.close()

    def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, link = await loop.create_unix_connection(self._make_link, self._address)
            except OSError:
                await asyncio.sleep(RETRY)
                continue
            await self._stay(link)
            if link.has_failed:
                await asyncio.sleep(RETRY_AFTER_ERROR)

    def _make_link(self) -> HubConnection:
        return HubConnection(self._hub, self._complete_until, self._on_gap)

    async def _stay(self, link: HubConnection) -> None:
        self._link = link
        try:
            await asyncio.wait({link.joined, link.lost}, return_when=asyncio.FIRST_COMPLETED)
            if link.joined.done():
                self.up_to_date.set()
            await link.lost
        finally:
            self._link = None
            self.up_to_date.clear()
            self._complete_until = link.complete_until
            link.close()
