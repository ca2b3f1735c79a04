"""The supervisor's worker processes: forking them, reading their reports, taking note of their end."""

import gc
import logging
import os
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NoReturn

from aphlict.errors import AphlictError
from aphlict.process import report, signals, worker
from aphlict.process.duties import Duty
from aphlict.process.launch import Launch

log = logging.getLogger(__name__)

BACK_OFF = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before the next worker; the last one stays
SETTLED = 60.0  # seconds after which a worker that dies is not held to be the earlier trouble again


@dataclass
class Child:
    """A worker as seen from here; its lifeline is held open, and nothing more."""

    pid: int
    reports: int | None
    lifeline: int
    since: float
    ready: bool = False
    error: AphlictError | None = None

    @property
    def descriptors(self) -> list[int]:
        """What the supervisor holds open for this worker; no other worker may have a copy."""
        return [self.lifeline, *([] if self.reports is None else [self.reports])]

    def receive_report(self) -> None:
        """Read the one report that it makes."""
        if self.reports is None:
            return
        try:
            report.receive(self.reports, "worker")
            self.ready = True
        except AphlictError as error:
            self.error = error
        os.close(self.reports)
        self.reports = None

    def reap(self) -> int | None:
        """Return its wait status once it has ended."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.receive_report()
        os.close(self.lifeline)
        return status


class Post:
    """The place of one worker: who has it now, or when it is filled again."""

    def __init__(self, duty: Duty) -> None:
        """Nobody is there yet; `fill` sees to it."""
        self.duty = duty
        self.child: Child | None = None
        self.due: float | None = None  # when it is to be filled again
        self._failures = 0

    def fill(self, launched: Launch, private: Iterable[int]) -> None:
        """Fork a worker. `private` are descriptors whose copies would keep others waiting for their end.

        Raises OSError where the system has no process, descriptor or memory for it.
        """
        self.due = None
        gc.collect()
        gc.freeze()  # what is there now is shared with the worker until someone writes to it
        self.child = _fork(launched, self.duty, private)

    def vacate(self, child: Child, cause: str) -> None:
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


def _fork(launched: Launch, duty: Duty, private: Iterable[int]) -> Child:
    """Fork a worker; raises OSError with nothing left open."""
    with ExitStack() as undo:
        report_receiver, report_sender = _pipe(undo)
        lifeline_receiver, lifeline_sender = _pipe(undo)
        with signals.held_back():
            pid = os.fork()
            if pid == 0:
                signals.begin_child()
                not_its = [report_receiver, lifeline_sender, *private]
                _be_worker(launched, duty, report_sender, lifeline_receiver, not_its)
        undo.pop_all()
    os.close(report_sender)
    os.close(lifeline_receiver)
    return Child(pid, report_receiver, lifeline_sender, time.monotonic())


def _pipe(undo: ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        undo.callback(os.close, end)
    return ends


def _be_worker(launched: Launch, duty: Duty, report_fd: int, lifeline: int, not_mine: list[int]) -> NoReturn:
    """Be the forked worker."""
    status = 1
    try:
        launched.pidfile.forget()
        launched.journal.count_anew()
        launched.close_sockets(keep=duty.sockets)
        for descriptor in not_mine:
            os.close(descriptor)
        status = worker.run(launched, duty, report_fd, lifeline)
        launched.journal.close()
    finally:
        os._exit(status)
