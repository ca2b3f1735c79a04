"""The supervisor's worker processes: forking them, reading their reports, taking note of their end."""

import contextlib
import gc
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NoReturn

from aphlict.errors import AphlictError, StartFailed
from aphlict.process import channel, signals, worker
from aphlict.process import startup_report as report
from aphlict.process.bootstrap import Launch
from aphlict.process.channel import Channel, Committed, Prepared
from aphlict.process.startup_report import Report
from aphlict.process.worker_specs import WorkerSpec

log = logging.getLogger(__name__)

BACK_OFF = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before the next worker; the last one stays
SETTLED = 60.0  # seconds after which a worker that dies is not held to be the earlier trouble again


@dataclass(eq=False)
class WorkerProcess:
    """A worker as seen from here."""

    pid: int
    name: str
    channel: Channel
    since: float
    ready: bool = False
    error: AphlictError | None = None

    def receive(self) -> Iterator[Prepared | Committed]:
        """The answers that have come. A report on the start is taken note of."""
        with contextlib.suppress(BlockingIOError):
            while self.channel.is_open:
                match self.channel.receive():
                    case None:
                        self._on_end()
                    case Report() as received, _:
                        self._on_report(received)
                    case (Prepared() | Committed()) as answer, _:
                        yield answer

    def _on_report(self, received: Report) -> None:
        try:
            report.check(received)
            self.ready = True
        except AphlictError as error:
            self.error = error

    def _on_end(self) -> None:
        self.channel.close()
        if not self.ready and self.error is None:
            self.error = StartFailed("the worker ended before it was ready")

    def reap(self) -> int | None:
        """Return its wait status once it has ended."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        for _ in self.receive():
            pass  # it does not matter any more
        self.channel.close()
        return status


class WorkerSlot:
    """The place of one worker: who has it now, or when it is filled again."""

    def __init__(self, duty: WorkerSpec) -> None:
        """Nobody is there yet; `fill` sees to it."""
        self.duty = duty
        self.child: WorkerProcess | None = None
        self.due: float | None = None  # when it is to be filled again
        self._failures = 0

    def fill(self, launched: Launch, release: Callable[[], None]) -> None:
        """Fork a worker. `release` closes its copies of what is the supervisor's alone, so that others see their end.

        Raises OSError where the system has no process, descriptor or memory for it.
        """
        self.due = None
        gc.collect()
        gc.freeze()  # what is there now is shared with the worker until someone writes to it
        self.child = _fork(launched, self.duty, release)

    def vacate(self, child: WorkerProcess, cause: str) -> None:
        """Its worker has ended: say so, and set when there is another."""
        lived = time.monotonic() - child.since
        if child.ready and lived >= SETTLED:
            self._failures = 0
        why = f" ({child.error})" if child.error else ""
        log.error(
            "%s %d ended after %.1f s, %s%s: another one starts in %g s",
            self.duty.name, child.pid, lived, cause, why, self._back_off(),
        )  # fmt: skip

    def postpone(self, error: OSError) -> None:
        """Log a start that failed, and set when the next one is tried."""
        log.error(
            "the %s cannot be started: %s; next try in %g s", self.duty.name, error.strerror, self._back_off()
        )

    def _back_off(self) -> float:
        pause = BACK_OFF[min(self._failures, len(BACK_OFF) - 1)]
        self._failures += 1
        self.due = time.monotonic() + pause
        return pause


def _fork(launched: Launch, duty: WorkerSpec, release: Callable[[], None]) -> WorkerProcess:
    """Fork a worker; raises OSError with nothing left open."""
    with ExitStack() as undo:
        ours, theirs = channel.pair()
        undo.callback(ours.close)
        undo.callback(theirs.close)
        with signals.held_back():
            pid = os.fork()
            if pid == 0:
                signals.begin_child()
                ours.close()
                _be_worker(launched, duty, theirs, release)
        undo.pop_all()
    theirs.close()
    return WorkerProcess(pid, duty.name, ours, time.monotonic())


def _be_worker(
    launched: Launch, duty: WorkerSpec, supervisor: Channel, release: Callable[[], None]
) -> NoReturn:
    """Be the forked worker."""
    status = 1
    try:
        launched.pidfile.forget()
        launched.journal.count_anew()
        launched.close_sockets(keep=duty.sockets)
        release()
        status = worker.run(launched, duty, supervisor)
        launched.journal.close()
    finally:
        os._exit(status)
