"""Worker processes as the supervisor sees them: which ones there are, forking them, and replacing them."""

import contextlib
import gc
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from aphlict import log_events
from aphlict.core.message import random_name
from aphlict.errors import AphlictError, StartFailed
from aphlict.log_events import Aside
from aphlict.node import FINGERPRINT_SIZE, Node, ports_of
from aphlict.process import channel, signals, worker
from aphlict.process.bootstrap import StartupContext
from aphlict.process.channel import Channel, Committed, Prepared, StartupReport
from aphlict.server.auth import Credentials
from aphlict.server.server import Port

log = logging.getLogger(__name__)

RESTART_DELAYS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before the next start; the last one stays
STABLE_AFTER = 60.0  # seconds after which a worker's exit counts as a first failure again


class WorkerSpec(NamedTuple):
    """The job of one worker process."""

    name: str  # in the log
    make_node: Callable[[], Node]  # called in the process, after the fork
    sockets: frozenset[socket.socket]  # those that it listens on


def plan_workers(context: StartupContext) -> list[WorkerSpec]:
    """The worker processes that the configuration asks for; the first one has the admin ports."""
    count = context.settings.processes
    if count == 1:
        [copy] = context.sockets
        sockets = frozenset(sock for each in copy for sock in each)

        def make_node() -> Node:
            settings = context.settings
            return Node(
                *(settings, ports_of(settings, copy), context.credentials),
                read=context.files.recall,
                events=context.log_handler.recent,
            )

        return [WorkerSpec("worker", make_node, sockets)]
    plan = _Plan(context)
    return [plan.hub(), *(plan.edge(number) for number in range(count))]


class _Plan:
    """What the hub and the edges of one server share."""

    def __init__(self, context: StartupContext) -> None:
        self._context = context
        self._fingerprint = random_name(FINGERPRINT_SIZE)
        self._started = time.monotonic()
        # An abstract name (unix(7)): it needs no folder, and nothing is left of it after kill -9.
        self._address = f"\0aphlict-{os.getpid()}-{random_name(FINGERPRINT_SIZE)}"
        self._edge_listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._edge_listener.setblocking(False)
        self._edge_listener.bind(self._address)
        self._edge_listener.listen()
        context.undo.callback(self._edge_listener.close)

    def hub(self) -> WorkerSpec:
        """The process that orders messages and serves publishers."""

        def make_node() -> Node:
            return Node(
                self._context.settings,
                *self._select("admin", 0),
                fingerprint=self._fingerprint,
                started=self._started,
                edge_listener=self._edge_listener.dup(),
                read=self._context.files.recall,
                events=self._context.log_handler.recent,
            )

        return WorkerSpec("hub", make_node, self._sockets("admin", 0))

    def edge(self, number: int) -> WorkerSpec:
        """A process that serves clients."""

        def make_node() -> Node:
            events = self._context.log_handler.recent
            events.clear()  # the lines of the supervisor are the hub's
            return Node(
                self._context.settings,
                *self._select("client", number),
                fingerprint=self._fingerprint,
                started=self._started,
                hub_address=self._address,
                events=events,
            )

        return WorkerSpec(f"edge {number + 1}", make_node, self._sockets("client", number))

    def _select(self, server_type: str, copy: int) -> tuple[list[Port], list[Credentials]]:
        """The ports and credentials as they are configured when a worker starts: a reload may have changed them."""
        context, indexes = self._context, self._indexes(server_type)
        ports = ports_of(context.settings, context.sockets[copy])
        return [ports[index] for index in indexes], [context.credentials[index] for index in indexes]

    def _sockets(self, server_type: str, copy: int) -> frozenset[socket.socket]:
        sockets = self._context.sockets[copy]
        return frozenset(sock for index in self._indexes(server_type) for sock in sockets[index])

    def _indexes(self, server_type: str) -> list[int]:
        servers = self._context.settings.servers
        return [index for index, server in enumerate(servers) if server.type == server_type]


@dataclass(eq=False)
class WorkerProcess:
    """A forked worker."""

    pid: int
    name: str
    channel: Channel
    started: float  # monotonic seconds
    is_ready: bool = False
    error: AphlictError | None = None

    def receive(self) -> Iterator[Prepared | Committed]:
        """The responses that have arrived. A startup report sets `is_ready` or `error`."""
        with contextlib.suppress(BlockingIOError):
            while self.channel.is_open:
                match self.channel.receive():
                    case None:
                        self._on_close()
                    case StartupReport() as report, _:
                        self._on_report(report)
                    case (Prepared() | Committed()) as response, _:
                        yield response

    def _on_report(self, report: StartupReport) -> None:
        try:
            report.raise_error()
            self.is_ready = True
        except AphlictError as error:
            self.error = error

    def _on_close(self) -> None:
        self.channel.close()
        if not self.is_ready and self.error is None:
            self.error = StartFailed("the worker exited before it was ready")

    def reap(self) -> int | None:
        """Return its wait status if it has exited."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        for _ in self.receive():
            pass  # only the startup report matters now
        self.channel.close()
        return status


class WorkerSlot:
    """The place of one worker: its process, or the time of its next start."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.process: WorkerProcess | None = None
        self.restart_at: float | None = None  # monotonic seconds
        self._failures = 0

    def spawn(self, context: StartupContext, close_copies: Callable[[], None]) -> None:
        """Fork a worker. `close_copies` closes, in the worker, the descriptors that only the supervisor uses: other
        processes must notice when it closes them.

        Raises OSError if the system lacks a process, descriptor or memory for it.
        """
        self.restart_at = None
        gc.collect()
        gc.freeze()  # the worker shares existing objects with this process until one of them writes to them
        self.process = _fork(context, self.spec, close_copies)

    def on_exit(self, process: WorkerProcess, cause: str) -> None:
        """Log the exit of the worker, and schedule the next start."""
        age = time.monotonic() - process.started
        if process.is_ready and age >= STABLE_AFTER:
            self._failures = 0
        log.error(
            log_events.WORKER_EXITED,
            self.spec.name, process.pid, age, cause, Aside(process.error), self._schedule_restart(),
        )  # fmt: skip

    def on_spawn_failed(self, error: OSError) -> None:
        """Log the failed start, and schedule the next one."""
        log.error(log_events.WORKER_NOT_STARTED, self.spec.name, error.strerror, self._schedule_restart())

    def _schedule_restart(self) -> float:
        delay = RESTART_DELAYS[min(self._failures, len(RESTART_DELAYS) - 1)]
        self._failures += 1
        self.restart_at = time.monotonic() + delay
        return delay


def _fork(context: StartupContext, spec: WorkerSpec, close_copies: Callable[[], None]) -> WorkerProcess:
    """Fork a worker; raises OSError with nothing left open."""
    with ExitStack() as undo:
        ours, theirs = channel.pair()
        undo.callback(ours.close)
        undo.callback(theirs.close)
        with signals.blocked():
            pid = os.fork()
            if pid == 0:
                signals.reset_in_child()
                ours.close()
                _run_child(context, spec, theirs, close_copies)
        undo.pop_all()
    theirs.close()
    return WorkerProcess(pid, spec.name, ours, time.monotonic())


def _run_child(
    context: StartupContext, spec: WorkerSpec, supervisor: Channel, close_copies: Callable[[], None]
) -> NoReturn:
    status = 1
    try:
        context.pidfile.close()
        context.log_handler.reset_counts()
        context.log_handler.recent.process = spec.name
        context.close_sockets(keep=spec.sockets)
        close_copies()
        status = worker.run(context, spec.make_node, supervisor)
        context.log_handler.close()
    finally:
        os._exit(status)
