"""Processes without sockets or threads: an event loop whose clock a test moves, and processes that can be killed."""

import asyncio
import contextvars
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

T = TypeVar("T")

UNIX_TIME = 1e9  # at which the clock of a loop is 0
current_process: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class Process:
    """What runs in its context belongs to it: its callbacks, tasks and timers.

    `clock_error`: by how many seconds its Unix time differs. `on_exit` are called after a kill.
    """

    def __init__(self, loop: "VirtualLoop", name: str, clock_error: float = 0.0) -> None:
        self.name = name
        self.clock_error = clock_error
        self.is_alive = True
        self.is_stopped = False
        self.on_exit: list[Callable[[], None]] = []
        self._loop = loop
        self._late: deque[Callable[[], None]] = deque()  # what would have run while it was stopped
        self.context = contextvars.Context()
        self.context.run(current_process.set, self)

    def __repr__(self) -> str:
        return self.name

    def call_soon(self, work: Callable[..., object], *arguments: Any) -> None:
        """Run something in the process."""
        self._loop.call_soon(work, *arguments, context=self.context)

    def call(self, work: Callable[[], T]) -> T:
        """Run something in the process now, and return the result. Not from a callback of the loop."""
        assert self.is_alive
        assert not self.is_stopped
        results: list[T] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                results.append(work())
            except Exception as error:  # noqa: BLE001 -- raised below
                errors.append(error)

        self.call_soon(run)
        self._loop.run_ready()
        if errors:
            raise errors[0]
        return results[0]

    def run(self, work: Callable[[], None]) -> None:
        """Run a callback, unless the process is dead; if it is stopped, when it continues."""
        if self.is_alive and self.is_stopped:
            self._late.append(work)
        elif self.is_alive:
            work()

    def kill(self) -> None:
        """As by SIGKILL: nothing of it runs any more, and the kernel closes its connections."""
        self.is_alive = False
        self._late.clear()
        for work in self.on_exit:
            work()

    def stop(self) -> None:
        """As by SIGSTOP."""
        self.is_stopped = True

    def resume(self) -> None:
        """As by SIGCONT."""
        self.is_stopped = False
        late, self._late = self._late, deque()
        for work in late:
            self.call_soon(work)


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without I/O, whose clock stands still except in `advance`."""

    def __init__(self, now: float = 1000.0) -> None:
        super().__init__()
        self.now = self._until = now
        self.errors: list[str] = []
        self._selector = SimpleNamespace(select=self._select)
        self._unix_servers: dict[str, tuple[Process, Callable[[], asyncio.BaseProtocol]]] = {}
        self.set_exception_handler(self._on_error)

    def _on_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "was destroyed but it is pending" not in context["message"]:  # a task of a process that was killed
            self.errors.append(repr(context))

    def time(self) -> float:
        """Part of the event loop."""
        return self.now

    def _select(self, timeout: float | None) -> list[object]:
        """Instead of waiting for I/O, advance the clock to the next timer."""
        if timeout is None or timeout > 0:
            if self.now >= self._until:
                self.stop()
            else:
                self.now = self._until if timeout is None else min(self.now + timeout, self._until)
        return []

    def _process_events(self, event_list: list[object]) -> None:
        """Part of the event loop: there are none."""

    def _write_to_self(self) -> None:
        """Part of the event loop: there are no threads."""

    def advance(self, seconds: float) -> None:
        """Run everything that is due within this time."""
        self._until = self.now + seconds
        self.run_forever()
        assert not self.errors, self.errors

    def run_ready(self) -> None:
        """Run what needs no time."""
        self.advance(0.0)

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        """Part of the event loop. Callbacks of a process that is dead do not run."""
        return super().call_soon(_guarded(callback, args, context), context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        """Part of the event loop, as `call_soon`."""
        return super().call_at(when, _guarded(callback, args, context), context=context)

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        """Call something that belongs to no process."""
        self.call_at(self.now + seconds, work, context=contextvars.Context())

    # Unix sockets

    async def create_unix_server(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], *_: Any, sock: Any = None, **__: Any
    ) -> Any:
        """Part of the event loop; `sock` is a Listener."""
        process = current_process.get()
        assert process is not None
        self._unix_servers[sock.address] = process, protocol_factory
        return SimpleNamespace(close=lambda: self._unix_servers.pop(sock.address, None))

    async def create_unix_connection(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], path: Any = None, **_: Any
    ) -> Any:
        """Part of the event loop."""
        process, factory = self._unix_servers.get(path, (None, None))
        if process is None or factory is None or not process.is_alive:
            raise ConnectionRefusedError(path)
        this_process = current_process.get()
        assert this_process is not None
        here = StreamEnd(self, this_process, protocol_factory())
        there = StreamEnd(self, process, process.context.run(factory))
        here.peer, there.peer = there, here
        process.call_soon(there.protocol.connection_made, there)
        here.protocol.connection_made(here)
        return here, here.protocol


class Listener(SimpleNamespace):
    """A listening Unix socket: only its address."""

    address: str


def _guarded(
    callback: Any, arguments: tuple[Any, ...], context: contextvars.Context | None
) -> Callable[[], None]:
    process = current_process.get() if context is None else context.get(current_process)
    if process is None:
        return lambda: callback(*arguments)
    return lambda: process.run(lambda: callback(*arguments))


class StreamEnd(asyncio.Transport):
    """One end of a stream between two processes: an asyncio transport.

    Written bytes arrive although the sender is killed, unless `loses` is set before.
    """

    def __init__(self, loop: VirtualLoop, process: Process, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        assert isinstance(protocol, asyncio.Protocol)
        self.peer: StreamEnd | None = None
        self.process = process
        self.protocol = protocol
        self.loses = False
        self._loop = loop
        self._is_closed = False
        self._is_paused = False
        self._received: deque[bytes] = deque()
        process.on_exit.append(self._shut_down)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Part of the transport."""
        return default

    def is_closing(self) -> bool:
        """Part of the transport."""
        return self._is_closed

    def get_write_buffer_size(self) -> int:
        """Part of the transport."""
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Part of the transport."""
        if not self._is_closed and self.peer is not None and not self.loses:
            self.peer.process.call_soon(self.peer.receive, bytes(data))

    def receive(self, data: bytes) -> None:
        """The other end has written this."""
        if self._is_paused:
            self._received.append(data)
        elif not self._is_closed:
            self.protocol.data_received(data)

    def pause_reading(self) -> None:
        """Part of the transport."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """Part of the transport."""
        self._is_paused = False
        while self._received and not self._is_paused:
            self.receive(self._received.popleft())

    def close(self) -> None:
        """Part of the transport."""
        self._shut_down()

    def abort(self) -> None:
        """Part of the transport."""
        self._shut_down()

    def _shut_down(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self.process.call_soon(self.protocol.connection_lost, None)
            if self.peer is not None:
                self.peer.process.call_soon(self.peer._shut_down)


class VirtualTime:
    """What the modules of a process find under the name `time`."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    perf_counter = staticmethod(time.perf_counter)  # measures what takes real time

    def monotonic(self) -> float:
        """As in the module `time`."""
        return self._loop.now

    def time(self) -> float:
        """As in the module `time`."""
        process = current_process.get()
        return UNIX_TIME + self._loop.now + (process.clock_error if process else 0.0)


@contextmanager
def virtual(loop: VirtualLoop, replaced: Mapping[str, object]) -> Iterator[None]:
    """Let all modules of the server use the clock of the loop; `replaced`: what else stands for what."""
    clock = VirtualTime(loop)
    logger = logging.getLogger("aphlict")
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("aphlict.") and getattr(module, "time", None) is time:
                stack.enter_context(mock.patch(f"{name}.time", clock))
        for name, value in replaced.items():
            stack.enter_context(mock.patch(name, value))
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        yield
    loop.close()
