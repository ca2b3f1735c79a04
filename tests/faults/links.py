"""TCP relays between the nodes of a test: each direction of each pair can be slow, held or cut."""

import asyncio
import re
import time
from collections.abc import Callable

HOST = "127.0.0.1"
CHUNK = 65536
MAX_NAME = 300  # bytes of a member `uniqueID` that may be split between two chunks
NAME = re.compile(rb'"uniqueID": ?"([^"]+)"')


class Link:
    """What one node sends to the admin port of another goes through here.

    `delay` and `response_delay` are seconds by which requests and responses arrive late, in their order. Bytes on
    the way arrive even if their sender has ended meanwhile, unless the link is cut.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.delay = 0.0
        self.response_delay = 0.0
        self.is_cut = False
        self.passed: dict[
            str, float
        ] = {}  # uniqueIDs in requests that the target has responded to: the first time
        self.answers = 0  # responses that have come back, or parts of them
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    @property
    def is_healthy(self) -> bool:
        """Whether it is neither slow nor held nor cut."""
        return not (self.is_cut or self.delay or self.response_delay) and self._is_open.is_set()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*(each.task for each in self._connections), return_exceptions=True)

    def hold(self) -> None:
        """Let nothing through until `heal`. Connections stay open, and new ones are accepted."""
        self._is_open.clear()

    def cut(self) -> None:
        """Reset all connections, also those that are opened until `heal`; what is on the way is lost."""
        self.is_cut = True
        for connection in tuple(self._connections):
            connection.task.cancel()

    def heal(self) -> None:
        """Be fast again. Bytes that were delayed keep their time of arrival."""
        self.is_cut = False
        self.delay = self.response_delay = 0.0
        self._is_open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.is_cut:
                raise ConnectionRefusedError
            far_reader, far_writer = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(self._on_response)
        pumps = (
            self._pump(reader, far_writer, lambda: self.delay, connection.on_request),
            self._pump(far_reader, writer, lambda: self.response_delay, connection.on_response),
        )
        connection.task = asyncio.gather(*pumps)
        self._connections.add(connection)

        def on_done(task: "asyncio.Future[tuple[None, None]]") -> None:
            if not task.cancelled():
                task.exception()  # a gathering of cancelled tasks has one
            self._connections.discard(connection)
            writer.transport.abort()
            far_writer.transport.abort()

        connection.task.add_done_callback(on_done)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        delay: Callable[[], float],
        on_data: Callable[[bytes], None],
    ) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        reading = asyncio.create_task(_read(source, queue, delay))
        try:
            data = b"?"
            while data:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self._is_open.wait()
                if data:
                    sink.write(data)
                    on_data(data)
                    await sink.drain()
                elif sink.can_write_eof():
                    sink.write_eof()
        except OSError:
            sink.transport.abort()
        finally:
            reading.cancel()

    def _on_response(self, names: list[str]) -> None:
        self.answers += 1
        now = time.monotonic()
        for name in names:
            self.passed.setdefault(name, now)


class _Connection:
    """The names in requests are passed once the target responds: it may have ended before."""

    task: "asyncio.Future[tuple[None, None]]"

    def __init__(self, on_passed: Callable[[list[str]], None]) -> None:
        self._on_passed = on_passed
        self._names: list[str] = []
        self._rest = b""

    def on_request(self, data: bytes) -> None:
        self._rest += data
        end = max(0, len(self._rest) - MAX_NAME)
        for match in NAME.finditer(self._rest):
            self._names.append(match.group(1).decode())
            end = max(end, match.end())
        self._rest = self._rest[end:]

    def on_response(self, _data: bytes) -> None:
        names, self._names = self._names, []
        self._on_passed(names)


async def _read(
    source: asyncio.StreamReader, queue: "asyncio.Queue[tuple[float, bytes]]", delay: Callable[[], float]
) -> None:
    """Note when each chunk is due; an empty one is the end."""
    data, due = b"?", 0.0
    while data:
        try:
            data = await source.read(CHUNK)
        except OSError:
            data = b""
        due = max(due, time.monotonic() + delay())
        queue.put_nowait((due, data))
