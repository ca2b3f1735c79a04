"""The supervisor: keeps a worker running, hands signals on, and never carries data."""

import gc
import logging
import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import NoReturn

from aphlict.errors import AphlictError, CannotStart
from aphlict.process import report, signals, worker
from aphlict.process.launch import Launch, log_files, make_contexts
from aphlict.process.reloading import read_again
from aphlict.process.systemd import READY, STOPPING, Systemd

log = logging.getLogger(__name__)

BACK_OFF = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before the next worker; the last one stays
SETTLED = 60.0  # seconds after which a worker that dies is not held to be the earlier trouble again
GRACE = 5.0  # seconds beyond the configured drain
IMPATIENT = 1.0  # seconds for a worker that was told a second time
TELL_REPEATS = 5.0  # seconds between two looks for counted lines that are due


class State(Enum):
    """What the supervisor is at."""

    STARTING = auto()  # the first worker is not ready yet: if it fails, so does the server
    RUNNING = auto()
    WAITING = auto()  # for the time to start another worker
    STOPPING = auto()
    ENDED = auto()


@dataclass
class Child:
    """The worker as seen from here; its lifeline is held open, and nothing more."""

    pid: int
    reports: int | None
    lifeline: int
    since: float
    ready: bool = False
    error: AphlictError | None = None

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


class Supervisor:
    """Runs workers on what was launched. `ready_fd` is told once that the server accepts."""

    def __init__(self, launched: Launch, ready_fd: int | None, systemd: Systemd) -> None:
        """Prepare; `run` does it."""
        self._launch = launched
        self._ready_fd = ready_fd
        self._systemd = systemd
        self._state = State.STARTING
        self._child: Child | None = None
        self._failures = 0
        self._deadline: float | None = None
        self._status = 0
        self._inbox = -1
        self._has_terminal = _has_terminal()

    def run(self) -> int:
        """Supervise until told to stop, and return the exit status. Raises what kept it from starting."""
        self._launch.pidfile.write(os.getpid())
        with signals.recorded() as self._inbox:
            self._start_worker()
            while self._state is not State.ENDED:
                self._wait(self._inbox)
        return self._status

    def _wait(self, inbox: int) -> None:
        """One turn: what has come in, then what is due."""
        descriptors = [inbox]
        if self._child and self._child.reports is not None:
            descriptors.append(self._child.reports)
        pause = TELL_REPEATS if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        readable, _, _ = select.select(descriptors, [], [], min(pause, TELL_REPEATS))
        if readable and readable != [inbox]:
            self._on_report()
        for number in signals.received(inbox):
            self._on_signal(number)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._on_deadline()
        self._launch.journal.tell_repeats()

    # What comes in

    def _on_report(self) -> None:
        assert self._child is not None
        self._child.receive_report()
        if not self._child.ready:
            return  # it is about to end
        if self._state is State.STARTING:
            self._state = State.RUNNING
            self._systemd.tell(READY)
            if self._ready_fd is not None:
                report.send(self._ready_fd, report.READY)
                os.close(self._ready_fd)
                self._ready_fd = None

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop(signal.Signals(number).name)
        elif number == signal.SIGHUP:
            self._on_hangup()
        elif number == signal.SIGUSR1:
            log.info("opening the log files again (SIGUSR1)")
            self._launch.journal.reopen()
            self._tell_worker(signal.SIGUSR1)
        elif number == signal.SIGCHLD:
            self._reap()

    def _on_hangup(self) -> None:
        """Reload; but what hangs up may be the terminal of `debug`, which then is over."""
        if self._has_terminal and not _has_terminal():
            self._stop("the terminal is gone")
            return
        self._systemd.tell_reloading()
        self._reload()
        self._systemd.tell(READY)

    def _on_deadline(self) -> None:
        self._deadline = None
        if self._state is State.WAITING:
            self._state = State.RUNNING
            self._start_worker()
        elif self._state is State.STOPPING and self._child:
            log.error("worker %d does not end: it is killed", self._child.pid)
            self._tell_worker(signal.SIGKILL)

    # What follows from it

    def _start_worker(self) -> None:
        report_receiver, report_sender = os.pipe()
        lifeline_receiver, lifeline_sender = os.pipe()
        gc.collect()
        gc.freeze()  # what is there now is shared with the worker until someone writes to it
        with signals.held_back():
            pid = os.fork()
            if pid == 0:
                signals.begin_child()
                not_its = [report_receiver, lifeline_sender, *self._private()]
                _be_worker(self._launch, report_sender, lifeline_receiver, not_its)
        os.close(report_sender)
        os.close(lifeline_receiver)
        self._child = Child(pid, report_receiver, lifeline_sender, time.monotonic())

    def _private(self) -> Iterator[int]:
        """Descriptors whose copies would keep others waiting for their end."""
        yield self._inbox
        if self._ready_fd is not None:
            yield self._ready_fd

    def _reap(self) -> None:
        """See whether the worker has ended, and decide what that means."""
        child = self._child
        status = child.reap() if child else None
        if child is None or status is None:
            return
        self._child = None
        cause = signals.describe_end(status)
        if self._state is State.STARTING:
            raise child.error or CannotStart(f"the worker ended before it was ready: {cause}")
        if self._state is State.STOPPING:
            self._end(status, cause)
        else:
            self._start_another(child, cause)

    def _start_another(self, child: Child, cause: str) -> None:
        lived = time.monotonic() - child.since
        if child.ready and lived >= SETTLED:
            self._failures = 0
        pause = BACK_OFF[min(self._failures, len(BACK_OFF) - 1)]
        self._failures += 1
        self._state = State.WAITING
        self._deadline = time.monotonic() + pause
        why = f" ({child.error})" if child.error else ""
        log.error(
            "worker %d ended after %.1f s, %s%s: another one starts in %g s",
            child.pid, lived, cause, why, pause,
        )  # fmt: skip

    def _end(self, status: int, cause: str) -> None:
        self._state = State.ENDED
        if status != 0:
            self._status = 1
            log.error("the server stopped, but not in good order: worker: %s", cause)
        else:
            log.info("the server stopped")

    def _stop(self, why: str) -> None:
        """The first time in good order, the second time at once."""
        if self._state is State.STOPPING:
            log.warning("stopping at once (%s again)", why)
            self._tell_worker(signal.SIGTERM)
            self._deadline = time.monotonic() + IMPATIENT
            return
        log.info("stopping (%s)", why)
        self._tell_worker(signal.SIGTERM)
        self._systemd.tell(STOPPING)
        self._state = State.STOPPING if self._child else State.ENDED
        settings = self._launch.settings
        self._deadline = time.monotonic() + settings.drain_delay + settings.drain_time + GRACE

    def _reload(self) -> None:
        """Take over what the next worker shall have, and let the present one do the same."""
        launched = self._launch
        try:
            settings, _ = read_again(launched.config, launched.settings)
            contexts = make_contexts(settings)
            launched.journal.follow(log_files(settings))
        except AphlictError as error:
            log.error("the new configuration is refused, the old one stays in force: %s", error)
            launched.journal.reopen()
            self._tell_worker(signal.SIGUSR1)
            return
        launched.settings, launched.contexts = settings, contexts
        self._tell_worker(signal.SIGHUP)

    def _tell_worker(self, number: signal.Signals) -> None:
        if self._child:
            os.kill(self._child.pid, number)  # not reaped, so the pid is still its


def _be_worker(launched: Launch, report_fd: int, lifeline: int, not_mine: list[int]) -> NoReturn:
    """Be the forked worker."""
    status = 1
    try:
        launched.pidfile.forget()
        for descriptor in not_mine:
            os.close(descriptor)
        status = worker.run(launched, report_fd, lifeline)
        launched.journal.close()
    finally:
        os._exit(status)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError:
        return False
    return True
