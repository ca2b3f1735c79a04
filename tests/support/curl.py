"""curl: an HTTP client that shares no code with the server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

TIMEOUT = 20  # seconds


class Answer(NamedTuple):
    """An HTTP response; the names in `headers` are in lower case, repeated ones joined with a comma."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


async def curl(url: str, *options: str) -> Answer:
    """Send one request."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-i", "--max-time", str(TIMEOUT), *options, url, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, f"curl ends with {process.returncode}: {output!r}"
    head, _, body = output.partition(b"\r\n\r\n")
    return Answer(*_read_head(head), body)


def _read_head(head: bytes) -> tuple[int, dict[str, str]]:
    start, *lines = head.decode().split("\r\n")
    headers: dict[str, str] = {}
    for name, _, value in (line.partition(": ") for line in lines):
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return int(start.split(" ")[1]), headers


class Block(NamedTuple):
    """A block of an event stream: its fields. A comment has the name "", repeated fields are joined."""

    fields: dict[str, str]

    @property
    def id(self) -> str | None:
        """The id of the event."""
        return self.fields.get("id")

    @property
    def json(self) -> Any:
        """The data of the event as JSON."""
        return json.loads(self.fields["data"])


class EventSource:
    """An event stream that curl reads."""

    def __init__(self, output: asyncio.StreamReader) -> None:
        self._output = output
        self.head = b""

    async def read_head(self) -> tuple[int, dict[str, str]]:
        """Status and headers."""
        self.head = await self._output.readuntil(b"\r\n\r\n")
        return _read_head(self.head.removesuffix(b"\r\n\r\n"))

    async def block(self) -> Block:
        """The next block."""
        text = (await asyncio.wait_for(self._output.readuntil(b"\n\n"), TIMEOUT)).decode()
        fields: dict[str, str] = {}
        for line in text.removesuffix("\n\n").split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        return Block(fields)

    async def event(self) -> Block:
        """The next block with data."""
        while "data" not in (block := await self.block()).fields:
            pass
        return block

    async def events(self, count: int) -> list[Block]:
        """The next blocks with data."""
        return [await self.event() for _ in range(count)]

    async def end(self) -> bytes:
        """The rest of the stream, up to its end."""
        return await asyncio.wait_for(self._output.read(), TIMEOUT)


@asynccontextmanager
async def event_source(url: str, *options: str) -> AsyncIterator[EventSource]:
    """Open an event stream."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-i", "-N", *options, url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        source = EventSource(process.stdout)
        await source.read_head()
        hello = await source.block()
        assert "retry" in hello.fields
        yield source
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
