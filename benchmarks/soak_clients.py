"""The clients of a soak: some record what they receive, some do not read, some violate the protocol."""

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
INVALID = (
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
    """What happened so far; `twice` has to stay 0."""

    events: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)  # seconds, of the present sample
    published: Counter[str] = field(default_factory=Counter)  # channel to the number of its last message
    refused: set[tuple[str, int]] = field(default_factory=set)  # messages that were not acknowledged


@dataclass
class Client:
    """A client that stays connected, or reconnects: it must receive each message of its channel once."""

    port: int
    channel: str
    account: Account
    stay: tuple[float, float] | None = None  # seconds; None: until the end
    away: tuple[float, float] = (0.0, 5.0)
    seen: set[int] = field(default_factory=set)
    first: int = 0  # number of the first message received
    newest: tuple[int, str] | None = None  # number and uniqueID
    after: str | None = None  # uniqueID up to which nothing is missing
    resuming: bool = False

    async def run(self) -> None:
        """Connect and disconnect, until cancelled."""
        while True:
            with contextlib.suppress(OSError, ConnectionClosed, TimeoutError):
                await self._visit()
                await asyncio.sleep(random.uniform(*self.away))
                continue
            self.account.events["dropped"] += 1
            await asyncio.sleep(0.2)

    async def _visit(self) -> None:
        async with connect(f"ws://{HOST}:{self.port}/ws/", compression=None, ping_interval=None) as client:
            self.account.events["visits"] += 1
            await _command(client, "subscribe", [self.channel])
            self.resuming = self.after is not None
            if self.resuming:
                await _command(client, "replay", {"after": self.after})
            if self.stay is None:
                await self._listen(client)
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._listen(client), random.uniform(*self.stay))
            if random.random() < 0.5:
                client.transport.abort()

    async def _listen(self, client: ClientConnection) -> None:
        async for text in client:
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
        """Live messages before the end of the replay may be newer than the missing ones."""
        if answer["id"] != "replay":
            return
        self.resuming = False
        if not answer["recovered"]:
            self.account.events["gaps reported"] += 1
            self.first, self.newest = 0, None
            self.seen.clear()
        self.after = self.newest[1] if self.newest else None

    def missing(self, until: int) -> int:
        """Count acknowledged messages up to this number that were not received."""
        wanted = set(range(self.first, until + 1)) if self.first else set[int]()
        refused = {number for channel, number in self.account.refused if channel == self.channel}
        return len(wanted - self.seen - refused)


async def _command(client: ClientConnection, command: str, data: Any) -> None:
    await client.send(json.dumps({"command": command, "data": data, "id": command}))


async def read_slowly(port: int, channel: str, account: Account) -> None:
    """Subscribe and do not read, until the server disconnects."""
    body = json.dumps({"command": "subscribe", "data": [channel]}).encode()
    while True:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((HOST, port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
        try:
            writer.write(UPGRADE + bytes((0x81, 0x80 | len(body))) + bytes(4) + body)
            await asyncio.sleep(random.uniform(60, 120))  # the stream pauses reading at its limit
            with contextlib.suppress(OSError):
                await asyncio.wait_for(_read_to_end(reader), 5)
                account.events["slow clients disconnected"] += 1
        except asyncio.TimeoutError:
            account.events["slow clients not disconnected"] += 1
        finally:
            writer.transport.abort()


async def _read_to_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def misbehave(port: int, account: Account) -> None:
    """Send invalid data and disconnect abruptly."""
    while True:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(random.choice(INVALID))
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(_read_to_end(reader), random.uniform(0, 15))
            if random.random() < 0.5:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        finally:
            writer.transport.abort()
            account.events["invalid clients"] += 1
        await asyncio.sleep(random.uniform(0, 1))
