"""The worker process: runs the node, and acts on signals and on the end of its supervisor."""

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
from typing import NamedTuple

from aphlict.errors import AphlictError
from aphlict.node import Node
from aphlict.process import signals
from aphlict.process import startup_report as report
from aphlict.process.bootstrap import Launch, log_files
from aphlict.process.channel import Channel, Commit, Committed, Discard, Message, Prepare, Prepared, Snapshot
from aphlict.process.logs import LogFile, open_all
from aphlict.process.worker_specs import WorkerSpec

log = logging.getLogger(__name__)

# Containers made beyond those freed until the young ones are looked at (at most 3 ms), and how often that happens
# until the next older ones are. 700, 10 and 10 are Python's own.
COLLECTOR_THRESHOLDS = 2500, 10, 100
TELL_REPEATS = 5.0  # seconds between two looks for counted lines that are due


class End(Enum):
    """Why the node shall stop."""

    DRAIN = auto()
    AT_ONCE = auto()


class Prospect(NamedTuple):
    """A configuration that is prepared: `switch` puts it in force; its log files are open."""

    number: int
    snapshot: Snapshot
    switch: Callable[[], None]
    log_files: list[LogFile]


class Worker:
    """One run of a node, hub or edge. `supervisor` ends when the supervisor does."""

    def __init__(self, launched: Launch, duty: WorkerSpec, supervisor: Channel) -> None:
        """Serve what was prepared."""
        self._launch = launched
        self._duty = duty
        self._supervisor = supervisor
        self._prospect: Prospect | None = None
        self._ends: asyncio.Queue[End] = asyncio.Queue()
        self._node: Node | None = None

    async def run(self) -> None:
        """Serve until told to stop. Raises what kept the node from starting."""
        self._listen_to_signals()
        self._tell_repeats()
        self._node = self._duty.make()
        await self._node.start()
        tune_collector()
        self._send(report.READY)
        if await self._ends.get() is End.DRAIN:
            await self._drain(self._node)
        else:
            self._node.abort()

    async def _drain(self, node: Node) -> None:
        """Stop in good order, or at once when anything more is asked for meanwhile."""
        draining = asyncio.create_task(node.drain())
        impatient = asyncio.create_task(self._ends.get())
        await asyncio.wait({draining, impatient}, return_when=asyncio.FIRST_COMPLETED)
        impatient.cancel()
        if not draining.done():
            draining.cancel()
            await asyncio.wait({draining})
            node.abort()
        with contextlib.suppress(asyncio.CancelledError):
            draining.result()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._ends.put_nowait, End.DRAIN)
        loop.add_signal_handler(signals.AT_ONCE, self._ends.put_nowait, End.AT_ONCE)
        loop.add_signal_handler(signal.SIGUSR1, self._launch.journal.reopen)
        loop.add_reader(self._supervisor, self._on_message)
        signals.let_through()

    def _on_orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._supervisor)
        log.error("the supervisor is gone: the worker ends too")
        self._ends.put_nowait(End.AT_ONCE)

    def _on_message(self) -> None:
        try:
            received = self._supervisor.receive()
        except BlockingIOError:
            return
        match received:
            case None:
                self._on_orphaned()
            case Prepare(number), descriptor:
                self._prepare(number, descriptor)
            case Commit(number), _ if self._prospect is not None and self._prospect.number == number:
                self._switch(self._prospect)
            case Discard(), _:
                self._discard()

    def _prepare(self, number: int, descriptor: int | None) -> None:
        """Do all that can fail of a reload, and say whether it did."""
        self._discard()
        refusal = None
        try:
            if descriptor is None:  # recvmsg(2): there was none left for it
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            assert self._node is not None
            snapshot = Snapshot.read(descriptor)
            switch = self._node.prepare_reload(snapshot.settings, snapshot.files.recall)
            files = log_files(snapshot.settings)
            open_all(files)
            self._prospect = Prospect(number, snapshot, switch, files)
        except (AphlictError, OSError) as error:
            refusal = str(error)
        except Exception as error:
            log.exception("the new configuration cannot be used; please report this")
            refusal = f"{type(error).__name__}: {error}"
        self._send(Prepared(number, refusal))

    def _switch(self, prospect: Prospect) -> None:
        self._prospect = None
        prospect.switch()
        launched = self._launch
        launched.settings, launched.files = prospect.snapshot.settings, prospect.snapshot.files
        launched.journal.follow(prospect.log_files)
        self._send(Committed(prospect.number))

    def _discard(self) -> None:
        if self._prospect is not None:
            for file in self._prospect.log_files:
                file.close()
            self._prospect = None

    def _send(self, message: Message) -> None:
        with contextlib.suppress(OSError):  # the supervisor is gone, which its end of the channel says
            self._supervisor.send(message)

    def _tell_repeats(self) -> None:
        self._launch.journal.tell_repeats()
        asyncio.get_running_loop().call_later(TELL_REPEATS, self._tell_repeats)


def run(launched: Launch, duty: WorkerSpec, supervisor: Channel) -> int:
    """Be the worker; returns the exit status of the process."""
    _raise_file_limit()
    try:
        asyncio.run(Worker(launched, duty, supervisor).run())
    except AphlictError as error:
        _report(supervisor, error)
        return error.exit_status
    except Exception as error:
        log.exception("the worker fails")
        _report(supervisor, error)
        return 1
    return 0


def _report(supervisor: Channel, error: Exception) -> None:
    with contextlib.suppress(OSError):  # it is gone
        supervisor.send(report.about(error))


def tune_collector() -> None:
    """Have the garbage collector look at everything seldom, and never at what was there before the first browser.

    Looking at everything stops the loop: for 60 ms where a million references to messages wait for slow browsers.
    What a server makes is freed when the last reference to it goes: there is hardly any garbage to be found.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)


def _raise_file_limit() -> None:
    """Each browser is a descriptor: use what the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
