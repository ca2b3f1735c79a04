"""The supervisor: keeps the workers running, hands signals on, and never carries data."""

import errno
import logging
import math
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto

from aphlict.errors import AphlictError, ReloadRejected, StartFailed
from aphlict.process import signals
from aphlict.process import startup_report as report
from aphlict.process.bootstrap import Launch
from aphlict.process.channel import Committed, Prepared
from aphlict.process.daemon import READY, STOPPING, Systemd
from aphlict.process.reload import Handover
from aphlict.process.startup_report import Sender
from aphlict.process.worker_process import WorkerProcess, WorkerSlot
from aphlict.process.worker_specs import plan_workers

log = logging.getLogger(__name__)

GRACE = 5.0  # seconds beyond the configured drain
IMPATIENT = 2.0  # seconds for a worker that was told a second time
TELL_REPEATS = 5.0  # seconds between two looks for counted lines that are due


class State(Enum):
    """What the supervisor is at."""

    STARTING = auto()  # the first workers are not ready yet: if one fails, so does the server
    RUNNING = auto()
    STOPPING = auto()
    ENDED = auto()


class Supervisor:
    """Runs workers on what was launched. `starter` gets the report that the server accepts."""

    def __init__(self, launched: Launch, starter: Sender | None, systemd: Systemd) -> None:
        """Prepare; `run` does it."""
        self._launch = launched
        self._starter = starter
        self._systemd = systemd
        self._state = State.STARTING
        self._posts = [WorkerSlot(duty) for duty in plan_workers(launched)]
        self._deadline: float | None = None
        self._status = 0
        self._inbox = -1
        self._has_terminal = _has_terminal()
        self._handovers = 0
        self._handover: Handover | None = None  # the reload that is going on
        self._reload_again = False

    def run(self) -> int:
        """Supervise until told to stop, and return the exit status. Raises what kept it from starting."""
        self._launch.pidfile.write(os.getpid())
        with signals.recorded() as self._inbox:
            for post in self._posts:
                self._fill(post)
            while self._state is not State.ENDED:
                self._wait(self._inbox)
        return self._status

    def _wait(self, inbox: int) -> None:
        """One turn: what has come in, then what is due."""
        channels = {child.channel.fileno(): child for child in self._children() if child.channel.is_open}
        next_one = min((each for each in self._deadlines() if each is not None), default=math.inf)
        pause = min(max(0.0, next_one - time.monotonic()), TELL_REPEATS)
        for descriptor in _readable([inbox, *channels], pause):
            if descriptor != inbox:
                self._on_messages(channels[descriptor])
        for number in signals.received(inbox):
            self._on_signal(number)
        self._on_time(time.monotonic())
        self._launch.journal.tell_repeats()

    def _deadlines(self) -> Iterator[float | None]:
        yield self._deadline
        if self._handover is not None:
            yield self._handover.deadline
        if self._may_fork:
            yield from (post.due for post in self._posts)

    @property
    def _may_fork(self) -> bool:
        """Not while workers prepare a configuration of which a new one would know nothing."""
        return self._handover is None or self._handover.is_committed

    def _children(self) -> list[WorkerProcess]:
        return [post.child for post in self._posts if post.child is not None]

    # What comes in

    def _on_messages(self, child: WorkerProcess) -> None:
        for answer in child.receive():
            self._on_answer(child, answer)
        if not all(each.ready for each in self._children()):
            return  # or it is about to end
        if self._state is State.STARTING:
            self._state = State.RUNNING
            self._systemd.tell(READY)
            if self._starter is not None:
                self._starter.send(report.READY)

    def _on_answer(self, child: WorkerProcess, answer: Prepared | Committed) -> None:
        self._carry_on(lambda handover: handover.on_answer(child, answer))

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop(signal.Signals(number).name)
        elif number == signal.SIGHUP:
            self._on_hangup()
        elif number == signal.SIGUSR1:
            log.info("opening the log files again (SIGUSR1)")
            self._launch.journal.reopen()
            self._tell_workers(signal.SIGUSR1)
        elif number == signal.SIGCHLD:
            self._reap()

    def _on_hangup(self) -> None:
        """Reload; but what hangs up may be the terminal of `debug`, which then is over."""
        if self._has_terminal and not _has_terminal():
            self._stop("the terminal is gone")
            return
        if self._state is not State.STOPPING:
            self._reload()

    def _on_time(self, now: float) -> None:
        """Do what is due."""
        for post in self._posts:
            if self._may_fork and post.due is not None and now >= post.due:
                self._fill(post)
        self._carry_on(lambda handover: handover.on_time(now))
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            for child in self._children():
                log.error("worker %d does not end: it is killed", child.pid)
            self._tell_workers(signal.SIGKILL)

    # What follows from it

    def _fill(self, post: WorkerSlot) -> None:
        """Fork a worker, or try again later. Raises StartFailed where that keeps the server from starting."""
        try:
            post.fill(self._launch, self._release)
        except OSError as error:
            if self._state is State.STARTING:
                sentence = f"the {post.duty.name} cannot be started: {error.strerror}"
                raise StartFailed(sentence) from error
            post.postpone(error)

    def _release(self) -> None:
        """In a forked worker: close the copies of what is the supervisor's alone."""
        os.close(self._inbox)
        if self._starter is not None:
            self._starter.close()
        for child in self._children():
            child.channel.close()

    def _reap(self) -> None:
        """See which workers have ended, and decide what that means."""
        for post in self._posts:
            child = post.child
            status = child.reap() if child else None
            if child is None or status is None:
                continue
            post.child = None
            self._on_end(post, child, status)

    def _on_end(self, post: WorkerSlot, child: WorkerProcess, status: int) -> None:
        cause = signals.describe_end(status)
        self._carry_on(lambda handover: handover.on_end(child))
        if self._state is State.STARTING:
            self._tell_workers(signal.SIGKILL)
            raise child.error or StartFailed(f"the {post.duty.name} ended before it was ready: {cause}")
        if self._state is not State.STOPPING:
            post.vacate(child, cause)
            return
        if status != 0:
            self._status = 1
            log.error("the server stopped, but not in good order: %s: %s", post.duty.name, cause)
        if not self._children():
            self._state = State.ENDED
            if self._status == 0:
                log.info("the server stopped")

    def _stop(self, why: str) -> None:
        """The first time in good order, the second time at once."""
        if self._state is State.STOPPING:
            log.warning("stopping at once (%s again)", why)
            self._tell_workers(signals.AT_ONCE)
            self._deadline = time.monotonic() + IMPATIENT
            return
        log.info("stopping (%s)", why)
        if self._handover is not None and not self._handover.is_committed:
            self._handover.discard()
        self._handover, self._reload_again = None, False
        self._tell_workers(signal.SIGTERM)
        self._launch.close_sockets()  # a worker's copy is the last one: who connects once it is closed is refused
        self._systemd.tell(STOPPING)
        self._state = State.STOPPING if self._children() else State.ENDED
        for post in self._posts:
            post.due = None
        settings = self._launch.settings
        self._deadline = time.monotonic() + settings.drain_delay + settings.drain_time + GRACE

    def _reload(self) -> None:
        """Have every worker use the configuration as it is now, or none."""
        if self._handover is not None:
            self._reload_again = True
            return
        self._systemd.tell_reloading()
        self._handovers += 1
        try:
            self._handover = Handover(self._handovers, self._launch, self._children())
        except (AphlictError, OSError) as error:
            self._refuse(error)
        self._carry_on(lambda _: None)

    def _carry_on(self, step: Callable[[Handover], None]) -> None:
        """Take a step of the reload that is going on, if there is one, and note whether it was the last."""
        if self._handover is None:
            return
        try:
            step(self._handover)
        except ReloadRejected as error:
            self._handover.discard()
            self._refuse(error)
        else:
            if self._handover.is_over:
                log.info("read %s again", self._launch.config)
                self._end_reload()

    def _refuse(self, error: Exception) -> None:
        log.error("the new configuration is refused, the old one stays in force: %s", error)
        self._launch.journal.reopen()
        self._tell_workers(signal.SIGUSR1)
        self._end_reload()

    def _end_reload(self) -> None:
        self._handover = None
        self._systemd.tell(READY)
        if self._reload_again:
            self._reload_again = False
            self._reload()

    def _tell_workers(self, number: signal.Signals) -> None:
        for child in self._children():
            os.kill(child.pid, number)  # not reaped, so the pid is still its


def _readable(descriptors: Iterable[int], seconds: float) -> list[int]:
    """Wait for the first of these; hangups and errors count."""
    poll = select.poll()  # select(2) takes no descriptor beyond 1,023
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(math.ceil(seconds * 1000))]


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)  # no sign that it is gone
    return True
