"""A worker process: runs a node until the supervisor, or the supervisor's exit, stops it."""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import signal
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, NamedTuple

from aphlict import log_events
from aphlict.errors import AphlictError
from aphlict.node import Node
from aphlict.process import signals
from aphlict.process.bootstrap import StartupContext, log_files
from aphlict.process.channel import (
    READY,
    Channel,
    ChannelMessage,
    Commit,
    Committed,
    Discard,
    Logged,
    Prepare,
    Prepared,
    Snapshot,
    StartupReport,
)
from aphlict.process.logs import LogFile, open_all

log = logging.getLogger(__name__)

# Container objects allocated in excess of those freed before a collection of the youngest generation (at most 3 ms),
# and the number of collections of a generation before one of the next older generation. Python's own are 700, 10, 10.
COLLECTOR_THRESHOLDS = 2500, 10, 100
FLUSH_INTERVAL = 5.0  # seconds between two calls of `LogHandler.flush_repeats`


class StopMode(Enum):
    """How the node stops."""

    DRAIN = auto()
    ABORT = auto()


class PreparedReload(NamedTuple):
    """A prepared configuration: `apply` makes the node use it; its log files are open."""

    number: int
    snapshot: Snapshot
    apply: Callable[[], None]
    log_files: list[LogFile]


class Worker:
    """Runs a node, and reacts to signals and to the messages of the supervisor.

    The channel from the supervisor closes when the supervisor exits.
    """

    def __init__(self, context: StartupContext, make_node: Callable[[], Node], supervisor: Channel) -> None:
        self._context = context
        self._make_node = make_node
        self._supervisor = supervisor
        self._prepared: PreparedReload | None = None
        self._stop_requests: asyncio.Queue[StopMode] = asyncio.Queue()
        self._node: Node | None = None
        self._starting: asyncio.Task[Any] | None = None  # waits for the node to start

    async def run(self) -> None:
        """Serve until a stop is requested. Raises the error that kept the node from starting."""
        self._add_handlers()
        self._flush_repeats()
        self._node = self._make_node()
        self._starting = asyncio.current_task()
        try:
            await self._node.start()
        except asyncio.CancelledError:  # the supervisor has exited: there is no client yet to be disconnected
            return
        self._starting = None
        tune_collector()
        self._send(READY)
        if await self._stop_requests.get() is StopMode.DRAIN:
            await self._drain(self._node)
        else:
            self._node.abort()

    def stop(self, mode: StopMode) -> None:
        """Request a stop; a second request while the node drains aborts it."""
        self._stop_requests.put_nowait(mode)

    async def _drain(self, node: Node) -> None:
        draining = asyncio.create_task(node.drain())
        second_request = asyncio.create_task(self._stop_requests.get())
        await asyncio.wait({draining, second_request}, return_when=asyncio.FIRST_COMPLETED)
        second_request.cancel()
        if not draining.done():
            draining.cancel()
            await asyncio.wait({draining})
            node.abort()
        with contextlib.suppress(asyncio.CancelledError):
            draining.result()

    def _add_handlers(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop, StopMode.DRAIN)
        loop.add_signal_handler(signals.ABORT, self.stop, StopMode.ABORT)
        loop.add_signal_handler(signal.SIGUSR1, self._context.log_handler.reopen)
        loop.add_reader(self._supervisor, self._on_message)
        signals.unblock()

    def _on_supervisor_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._supervisor)
        log.error(log_events.SUPERVISOR_EXITED)
        if self._starting is not None:
            self._starting.cancel()
        self.stop(StopMode.ABORT)

    def _on_message(self) -> None:
        try:
            received = self._supervisor.receive()
        except BlockingIOError:
            return
        match received:
            case None:
                self._on_supervisor_exit()
            case Prepare(number), descriptor:
                self._prepare(number, descriptor)
            case Commit(number), _ if self._prepared is not None and self._prepared.number == number:
                self._apply(self._prepared)
            case Discard(), _:
                self._discard()
            case Logged(event), _:
                self._context.log_handler.recent.add(event)

    def _prepare(self, number: int, descriptor: int | None) -> None:
        """Do every step of a reload that can fail, and report the result."""
        self._discard()
        refusal = None
        try:
            if descriptor is None:  # recvmsg(2): this process has no descriptor left for it
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            assert self._node is not None
            snapshot = Snapshot.read(descriptor)
            apply = self._node.prepare_reload(snapshot.settings, snapshot.files.recall)
            files = log_files(snapshot.settings)
            open_all(files)
            self._prepared = PreparedReload(number, snapshot, apply, files)
        except (AphlictError, OSError) as error:
            refusal = str(error)
        except Exception as error:
            log.exception(log_events.RELOAD_ERROR)
            refusal = f"{type(error).__name__}: {error}"
        self._send(Prepared(number, refusal))

    def _apply(self, prepared: PreparedReload) -> None:
        self._prepared = None
        prepared.apply()
        context = self._context
        context.settings, context.files = prepared.snapshot.settings, prepared.snapshot.files
        context.log_handler.replace_files(prepared.log_files)
        self._send(Committed(prepared.number))

    def _discard(self) -> None:
        if self._prepared is not None:
            for file in self._prepared.log_files:
                file.close()
            self._prepared = None

    def _send(self, message: ChannelMessage) -> None:
        with contextlib.suppress(OSError):  # the supervisor has exited: `_on_message` notices
            self._supervisor.send(message)

    def _flush_repeats(self) -> None:
        self._context.log_handler.flush_repeats()
        asyncio.get_running_loop().call_later(FLUSH_INTERVAL, self._flush_repeats)


def run(context: StartupContext, make_node: Callable[[], Node], supervisor: Channel) -> int:
    """Run a worker; returns the exit status of its process."""
    _raise_file_limit()
    try:
        asyncio.run(Worker(context, make_node, supervisor).run())
    except AphlictError as error:
        _report(supervisor, error)
        return error.exit_status
    except Exception as error:
        log.exception(log_events.WORKER_FAILED)
        _report(supervisor, error)
        return 1
    return 0


def _report(supervisor: Channel, error: Exception) -> None:
    with contextlib.suppress(OSError):  # the supervisor has exited
        supervisor.send(StartupReport.from_error(error))


def tune_collector() -> None:
    """Make full garbage collections rare, and exclude the objects that exist before the first client.

    A full collection stops the event loop: for 60 ms if a million references to messages wait for slow clients.
    The server's objects are freed when their last reference is dropped; there are hardly any cycles to collect.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


def _raise_file_limit() -> None:
    """Each client uses a descriptor: use as many as the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
