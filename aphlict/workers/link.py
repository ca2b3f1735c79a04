"""An edge's side: takes messages from the hub, and keeps a copy of the history for the time without one."""

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Iterator

from aphlict.hub import Hub
from aphlict.node import TURN
from aphlict.workers.records import (
    Ask,
    Confirm,
    History,
    Leave,
    Packed,
    Publish,
    Record,
    RecordReader,
    Tell,
    encode,
    histories,
    pack,
)

log = logging.getLogger(__name__)

RETRY = 0.05  # seconds between two attempts to reach the hub


class Link(asyncio.Protocol):
    """The stream to the hub. Made again and again by `keep`."""

    def __init__(self, hub: Hub, up_to_date: asyncio.Event) -> None:
        self._hub = hub
        self._up_to_date = up_to_date
        self._reader = RecordReader()
        self._records: deque[Record] = deque()  # that came, and are not done
        self._steps: Iterator[None] | None = None  # while they are being done
        self._transport: asyncio.Transport | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's interface: tells the hub what this edge has."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        for part in histories(pack(entry.message, entry.at) for entry in self._hub.archive.entries()):
            transport.write(part)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's interface."""
        self._records.extend(self._reader.feed(data))
        if self._steps is None:
            self._steps = self._do_records()
            self._work()

    def connection_lost(self, _error: Exception | None) -> None:
        """Part of asyncio's interface."""
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
        """Do what came, until other work of the loop has its turn; nothing more is read meanwhile."""
        assert self._steps is not None
        assert self._transport is not None
        until = time.monotonic() + TURN
        for _ in self._steps:
            if time.monotonic() > until:
                self._transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._work)
                return
        self._steps = None
        self._transport.resume_reading()

    def _do_records(self) -> Iterator[None]:
        """Do one record after the other; yields after each message."""
        while self._records:
            match self._records.popleft():
                case Publish(number, messages):
                    matched: list[int] = []
                    yield from self._publish(messages, matched)
                    if number:
                        self._send(Confirm(number, matched, self._hub.load))
                case Ask(number, instance):
                    self._send(Tell(number, os.getpid(), self._hub.subscribed(instance), self._hub.load))
                case History(messages, last):
                    yield from self._publish(messages, [])
                    if last:
                        self._up_to_date.set()

    def _publish(self, messages: list[Packed], matched: list[int]) -> Iterator[None]:
        for packed in messages:
            matched.append(self._hub.publish(packed.unpack(), packed.at).matched)
            yield

    def _send(self, record: Record) -> None:
        assert self._transport is not None
        self._transport.write(encode(record))


class LinkKeeper:
    """Keeps an edge linked to its hub. `up_to_date` is set while it is."""

    def __init__(self, hub: Hub, address: str) -> None:
        self.up_to_date = asyncio.Event()
        self.lost_at: float | None = time.monotonic()
        self._hub = hub
        self._address = address
        self._link: Link | None = None
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
                _, link = await loop.create_unix_connection(
                    lambda: Link(self._hub, self.up_to_date), self._address
                )
            except OSError:
                await asyncio.sleep(RETRY)
                continue
            await self._stay(link)

    async def _stay(self, link: Link) -> None:
        self._link = link
        try:
            await self._until_up_to_date(link)
            await link.lost
        finally:
            self._link = None
            self.up_to_date.clear()
            self.lost_at = time.monotonic()
            link.close()

    async def _until_up_to_date(self, link: Link) -> None:
        waiting = asyncio.create_task(self.up_to_date.wait())
        await asyncio.wait({waiting, link.lost}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self.up_to_date.is_set():
            self.lost_at = None
