"""The network of a simulated cluster: links between nodes, and what stands for sockets."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Protocol

from aphlict.cluster.http_client import PeerAddress, PeerResponse
from aphlict.config.settings import Settings
from aphlict.core.endings import EndedConnections
from aphlict.core.metrics import Cause, ConnectionCounters, Samples
from aphlict.core.stats import LimitCounters
from aphlict.errors import AphlictError, PeerDisconnected, PeerTimeout, PeerUnreachable
from aphlict.protocol.http import NODE_FIELD, ORIGIN_FIELD, Request
from aphlict.server.timer_wheel import TICK, TimerWheel
from tests.support.simulation import Process, VirtualLoop, current_process


class Receiver(Protocol):
    """The cluster, as a connection to a peer sees it."""

    @property
    def links(self) -> Mapping[tuple[str, str], "Link"]:
        """By the names of the nodes at both ends."""

    def hub_process(self, name: str) -> Process | None:
        """The process that accepts messages, if it runs."""

    def receive(
        self, process: Process, request: Request, body: bytes, respond: Callable[[PeerResponse], None]
    ) -> None:
        """A request has arrived at an admin port."""


class Server:
    """In place of `aphlict.server.server.Server`: connections register themselves."""

    is_healthy = True

    def __init__(
        self, settings: Settings, _ports: object, _credentials: object, handlers: Any, counters: LimitCounters
    ) -> None:
        loop = asyncio.get_running_loop()
        self.handlers = handlers
        self.context = SimpleNamespace(
            limits=settings.limits,
            limit_counters=counters,
            counters=ConnectionCounters(),
            ended=EndedConnections(),
            timers=TimerWheel(loop.time()),
        )
        self.process = SimpleNamespace(name=f"process {id(self)}")
        self.accepts = False
        self.open: dict[Any, None] = {}  # connections, oldest first
        self._timers: list[asyncio.Handle] = []

    def start(self) -> None:
        """As in the server."""
        self.accepts = True
        self.every(TICK, self._sweep)

    def _sweep(self) -> None:
        while self.context.timers.sweep(asyncio.get_running_loop().time()):
            pass

    def every(self, seconds: float, work: Callable[[], None]) -> None:
        """As in the server."""
        loop = asyncio.get_running_loop()

        def run() -> None:
            work()
            loop.call_later(seconds, run)

        loop.call_later(seconds, run)

    def samples(self) -> Samples:
        """Nothing is measured."""
        return {}

    def disconnect(self, code: int, reason: str, cause: Cause) -> None:
        """As in the server."""
        for connection in list(self.open):
            connection.close(code, reason, cause=cause)


class Link:
    """The way from one node to another: of requests, and of their responses.

    `delay` is in seconds, each way. A link that is `broken` refuses connections; on one that `hangs`, packets wait:
    TCP sends them again and again.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self.delay = 0.001
        self.is_broken = False
        self.hangs = False
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self.connections: list[PeerConnection] = []

    def carry(self, work: Callable[[], None]) -> None:
        """Call something at the other end."""
        self._loop.after(self.delay, lambda: self._arrive(work))

    def _arrive(self, work: Callable[[], None]) -> None:
        if self.hangs:
            self._waiting.append(work)
        elif not self.is_broken:
            work()

    def break_off(self) -> None:
        """Reset the connection, and refuse others."""
        self.is_broken = True
        self._waiting.clear()
        self.reset()

    def reset(self) -> None:
        """Reset the connection."""
        connections, self.connections = self.connections, []
        for connection in connections:
            connection.process.call_soon(connection.on_reset)

    def hang(self) -> None:
        """Deliver nothing for now."""
        self.hangs = True

    def heal(self) -> None:
        """Carry everything again."""
        self.is_broken = self.hangs = False
        waiting, self._waiting = self._waiting, deque()
        for work in waiting:
            work()


class PeerConnection:
    """In place of `aphlict.cluster.http_client.PeerConnection`."""

    round_trip: float | None = None  # nothing is measured

    def __init__(
        self,
        mesh: Receiver,
        address: PeerAddress,
        fingerprint: str,
        timeout: float,
        on_close: Callable[[], None],
        greeting: Callable[[], str],
    ) -> None:
        process = current_process.get()
        assert process is not None
        self.process = process
        self.address = address
        self._mesh = mesh
        self._timeout = timeout
        self._on_close = on_close
        self._fingerprint = fingerprint
        self._greeting = greeting
        self._link = mesh.links[process.name[0], address.host]
        self._target: Process | None = None
        self._response: asyncio.Future[PeerResponse] | None = None

    @property
    def is_open(self) -> bool:
        """As in the server."""
        return self._target is not None

    async def connect(self, timeout: float) -> None:
        """As in the server."""
        self.close()
        link, loop = self._link, asyncio.get_running_loop()
        target = self._mesh.hub_process(self.address.host)
        if link.is_broken or target is None:
            raise PeerUnreachable("connection refused")
        answered = loop.create_future()

        def answer() -> None:
            if not answered.done():
                answered.set_result(None)

        link.carry(lambda: link.carry(lambda: self.process.call_soon(answer)))
        try:
            await asyncio.wait_for(answered, timeout)
        except asyncio.TimeoutError as error:
            raise PeerTimeout("no connection") from error
        if not target.is_alive or link.is_broken:
            raise PeerUnreachable("connection refused")
        self._target = target
        link.connections.append(self)

    def close(self) -> None:
        """As in the server."""
        self._target = self._response = None
        if self in self._link.connections:
            self._link.connections.remove(self)

    def on_reset(self) -> None:
        """The connection is lost."""
        was_open, self._target = self._target is not None, None
        if self._response is not None and not self._response.done():
            self._response.set_exception(PeerDisconnected("it closed the connection"))
        elif was_open:
            self._on_close()

    async def request(self, method: str, target: str, body: bytes = b"") -> PeerResponse:
        """As in the server."""
        process = self._target
        if process is None:
            raise PeerDisconnected("the connection was closed")
        head = {
            NODE_FIELD.lower(): self._fingerprint,
            ORIGIN_FIELD.lower(): self._greeting(),
            "host": self.address.host,
        }
        request = Request(method, target, 1, head, len(body))
        response = self._response = asyncio.get_running_loop().create_future()
        self._link.carry(lambda: self._mesh.receive(process, request, body, self._respond_to(response)))
        try:
            return await asyncio.wait_for(response, self._timeout)
        except asyncio.TimeoutError as error:
            self.close()
            raise PeerTimeout("it did not respond") from error
        except PeerDisconnected:
            self.close()
            raise

    def _respond_to(self, future: "asyncio.Future[PeerResponse]") -> Callable[[PeerResponse], None]:
        def respond(response: PeerResponse) -> None:
            if not future.done():
                future.set_result(response)

        return lambda response: self._link.carry(lambda: self.process.call_soon(respond, response))


class AdminConnection:
    """A connection of a publisher or a node, which receives one response."""

    def __init__(self, respond: Callable[[PeerResponse], None]) -> None:
        self._respond = respond

    def respond_to(self, _request: Request, status: int, _fields: Mapping[str, str], body: bytes) -> None:
        """As in the server."""
        self._respond(PeerResponse(status, "", body))

    def reject(
        self,
        error: AphlictError,
        _request: Request | None = None,
        members: Mapping[str, object] | None = None,
    ) -> None:
        """As in the server."""
        body = {"error": str(error), **(members or {})}
        self._respond(PeerResponse(error.http_status, "", json.dumps(body).encode()))
