"""The browsers of a soak: good ones that keep account of what they get, slow ones, and bad ones."""

import asyncio
import contextlib
import json
import random
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

HOST = "127.0.0.1"
UPGRADE = (
    b"GET /ws/ HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
RESET = struct.pack("ii", 1, 0)  # close() resets the connection
NASTY = (
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"G" * 20_000,
    UPGRADE[:60],
    UPGRADE + b"\x81\x05hello",
    UPGRADE + b"\x81\xff\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00",
    UPGRADE + b"\x81\x81\x00\x00\x00\x00\xff",
    UPGRADE + b"\x89\x80\x00\x00\x00\x00" * 500,
    UPGRADE + b"\x81\x84\x00\x00\x00\x00ping" * 100,
    UPGRADE + b"\x01\x80\x00\x00\x00\x00" + b"\x00\x80\x00\x00\x00\x00" * 1000,
)


@dataclass
class Account:
    """What happened so far; `lost` and `twice` have to stay 0."""

    events: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)  # seconds, of the present sample
    published: Counter[str] = field(default_factory=Counter)  # channel to the number of its last message
    refused: set[tuple[str, int]] = field(default_factory=set)  # messages that were not acknowledged


@dataclass
class Browser:
    """A page that stays, or comes and goes: each message of its channel once, also over a reconnect."""

    port: int
    channel: str
    account: Account
    stay: tuple[float, float] | None = None  # seconds; None: for ever
    away: tuple[float, float] = (0.0, 5.0)
    seen: set[int] = field(default_factory=set)
    first: int = 0  # the number of the first message that it got
    newest: tuple[int, str] | None = None  # number and uniqueID
    after: str | None = None  # up to here it has everything
    resuming: bool = False

    async def run(self) -> None:
        """Come and go, until cancelled."""
        while True:
            with contextlib.suppress(OSError, ConnectionClosed, TimeoutError):
                await self._visit()
                await asyncio.sleep(random.uniform(*self.away))
                continue
            self.account.events["dropped"] += 1
            await asyncio.sleep(0.2)

    async def _visit(self) -> None:
        async with connect(f"ws://{HOST}:{self.port}/ws/", compression=None, ping_interval=None) as browser:
            self.account.events["visits"] += 1
            await _command(browser, "subscribe", [self.channel])
            self.resuming = self.after is not None
            if self.resuming:
                await _command(browser, "replay", {"after": self.after})
            if self.stay is None:
                await self._listen(browser)
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._listen(browser), random.uniform(*self.stay))
            if random.random() < 0.5:
                browser.transport.abort()

    async def _listen(self, browser: ClientConnection) -> None:
        async for text in browser:
            self._take(json.loads(text))

    def _take(self, message: dict[str, Any]) -> None:
        if "type" in message:
            self._on_answer(message)
            return
        number = message["n"]
        self.first = self.first or number
        self.account.events["twice"] += number in self.seen
        self.account.events["received"] += 1
        self.seen.add(number)
        self.newest = max(self.newest or (0, ""), (number, message["uniqueID"]))
        if not self.resuming:
            self.after = self.newest[1]
        if self.stay is None:
            self.account.latencies.append(time.monotonic() - message["sent"])

    def _on_answer(self, answer: dict[str, Any]) -> None:
        """What came live before the replay was done may be newer than what is still missing."""
        if answer["id"] != "replay":
            return
        self.resuming = False
        if not answer["recovered"]:
            self.account.events["gaps told"] += 1
            self.first, self.newest = 0, None
            self.seen.clear()
        self.after = self.newest[1] if self.newest else None

    def missing(self, until: int) -> int:
        """How many acknowledged messages it did not get, up to a number of its channel."""
        wanted = set(range(self.first, until + 1)) if self.first else set[int]()
        refused = {number for channel, number in self.account.refused if channel == self.channel}
        return len(wanted - self.seen - refused)


async def _command(browser: ClientConnection, command: str, data: Any) -> None:
    await browser.send(json.dumps({"command": command, "data": data, "id": command}))


async def read_slowly(port: int, channel: str, account: Account) -> None:
    """Subscribe and never read, until the server has had enough."""
    body = json.dumps({"command": "subscribe", "data": [channel]}).encode()
    while True:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((HOST, port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
        try:
            writer.write(UPGRADE + bytes((0x81, 0x80 | len(body))) + bytes(4) + body)
            await asyncio.sleep(random.uniform(60, 120))  # beyond its limit the stream reads no more
            with contextlib.suppress(OSError):
                await asyncio.wait_for(_read_to_end(reader), 5)
                account.events["slow ones cut off"] += 1
        except asyncio.TimeoutError:
            account.events["slow ones that were fast enough"] += 1
        finally:
            writer.transport.abort()


async def _read_to_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def misbehave(port: int, account: Account) -> None:
    """Send what no browser sends, and go away in some rude way."""
    while True:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(random.choice(NASTY))
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(_read_to_end(reader), random.uniform(0, 15))
            if random.random() < 0.5:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        finally:
            writer.transport.abort()
            account.events["bad ones"] += 1
        await asyncio.sleep(random.uniform(0, 1))
