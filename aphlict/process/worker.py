"""The worker process: runs the node, and acts on signals and on the end of its supervisor."""

import asyncio
import contextlib
import logging
import resource
import signal
from enum import Enum, auto

from aphlict.errors import AphlictError
from aphlict.process import report, signals
from aphlict.process.duties import Duty, Serving
from aphlict.process.launch import Launch, log_files
from aphlict.process.reloading import read_again

log = logging.getLogger(__name__)

TELL_REPEATS = 5.0  # seconds between two looks for counted lines that are due


class End(Enum):
    """Why the node shall stop."""

    DRAIN = auto()
    AT_ONCE = auto()


class Worker:
    """One run of a node, hub or edge. `report_fd` takes the report, `lifeline` ends when the supervisor does."""

    def __init__(self, launched: Launch, duty: Duty, report_fd: int, lifeline: int) -> None:
        """Serve what was prepared."""
        self._launch = launched
        self._duty = duty
        self._report_fd = report_fd
        self._lifeline = lifeline
        self._ends: asyncio.Queue[End] = asyncio.Queue()
        self._node: Serving | None = None

    async def run(self) -> None:
        """Serve until told to stop. Raises what kept the node from starting."""
        self._listen_to_signals()
        self._tell_repeats()
        self._node = self._duty.make()
        await self._node.start()
        report.send(self._report_fd, report.READY)
        if await self._ends.get() is End.DRAIN:
            await self._drain(self._node)
        else:
            self._node.abort()

    async def _drain(self, node: Serving) -> None:
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
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGUSR1, self._launch.journal.reopen)
        loop.add_reader(self._lifeline, self._on_orphaned)
        signals.let_through()

    def _on_orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._lifeline)
        log.error("the supervisor is gone: the worker ends too")
        self._ends.put_nowait(End.AT_ONCE)

    def _reload(self) -> None:
        """Take over what may change while running; what is bad leaves everything as it was."""
        launched, node = self._launch, self._node
        try:
            settings, waiting = read_again(launched.config, launched.settings)
            if node is not None:
                node.reload(settings)
            launched.journal.follow(log_files(settings))
        except AphlictError as error:
            log.error("the new configuration is refused, the old one stays in force: %s", error)
            return
        launched.settings = settings
        for key in waiting:
            log.warning('"%s" has changed in %s: that takes effect at the next restart', key, launched.config)
        log.info("read %s again", launched.config)

    def _tell_repeats(self) -> None:
        self._launch.journal.tell_repeats()
        asyncio.get_running_loop().call_later(TELL_REPEATS, self._tell_repeats)


def run(launched: Launch, duty: Duty, report_fd: int, lifeline: int) -> int:
    """Be the worker; returns the exit status of the process."""
    _raise_file_limit()
    try:
        asyncio.run(Worker(launched, duty, report_fd, lifeline).run())
    except AphlictError as error:
        report.send(report_fd, report.about(error))
        return error.exit_status
    except Exception as error:
        log.exception("the worker fails")
        report.send(report_fd, report.about(error))
        return 1
    return 0


def _raise_file_limit() -> None:
    """Each browser is a descriptor: use what the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
