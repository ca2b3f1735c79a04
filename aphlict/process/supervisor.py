"""The supervisor: keeps the workers running, hands signals on, and never carries data."""

import errno
import logging
import math
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from enum import Enum, auto

from aphlict.errors import AphlictError, CannotStart
from aphlict.process import report, signals
from aphlict.process.children import Child, Post
from aphlict.process.duties import assign
from aphlict.process.launch import Launch, find_warnings, load_credentials, log_files
from aphlict.process.reloading import read_again
from aphlict.process.systemd import READY, STOPPING, Systemd

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
    """Runs workers on what was launched. `ready_fd` is told once that the server accepts."""

    def __init__(self, launched: Launch, ready_fd: int | None, systemd: Systemd) -> None:
        """Prepare; `run` does it."""
        self._launch = launched
        self._ready_fd = ready_fd
        self._systemd = systemd
        self._state = State.STARTING
        self._posts = [Post(duty) for duty in assign(launched)]
        self._deadline: float | None = None
        self._status = 0
        self._inbox = -1
        self._has_terminal = _has_terminal()

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
        reports = {child.reports: child for child in self._children() if child.reports is not None}
        deadlines = [self._deadline, *(post.due for post in self._posts)]
        next_one = min((each for each in deadlines if each is not None), default=math.inf)
        pause = min(max(0.0, next_one - time.monotonic()), TELL_REPEATS)
        for descriptor in _readable([inbox, *reports], pause):
            if descriptor != inbox:
                self._on_report(reports[descriptor])
        for number in signals.received(inbox):
            self._on_signal(number)
        self._on_time(time.monotonic())
        self._launch.journal.tell_repeats()

    def _children(self) -> list[Child]:
        return [post.child for post in self._posts if post.child is not None]

    # What comes in

    def _on_report(self, child: Child) -> None:
        child.receive_report()
        if not all(each.ready for each in self._children()):
            return  # or it is about to end
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
            self._tell_workers(signal.SIGUSR1)
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

    def _on_time(self, now: float) -> None:
        """Do what is due."""
        for post in self._posts:
            if post.due is not None and now >= post.due:
                self._fill(post)
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            for child in self._children():
                log.error("worker %d does not end: it is killed", child.pid)
            self._tell_workers(signal.SIGKILL)

    # What follows from it

    def _fill(self, post: Post) -> None:
        """Fork a worker, or try again later. Raises CannotStart where that keeps the server from starting."""
        try:
            post.fill(self._launch, self._private())
        except OSError as error:
            if self._state is State.STARTING:
                sentence = f"the {post.duty.name} cannot be started: {error.strerror}"
                raise CannotStart(sentence) from error
            post.postpone(error)

    def _private(self) -> Iterator[int]:
        """Descriptors whose copies would keep others waiting for their end."""
        yield self._inbox
        if self._ready_fd is not None:
            yield self._ready_fd
        for child in self._children():
            yield from child.descriptors

    def _reap(self) -> None:
        """See which workers have ended, and decide what that means."""
        for post in self._posts:
            child = post.child
            status = child.reap() if child else None
            if child is None or status is None:
                continue
            post.child = None
            self._on_end(post, child, status)

    def _on_end(self, post: Post, child: Child, status: int) -> None:
        cause = signals.describe_end(status)
        if self._state is State.STARTING:
            self._tell_workers(signal.SIGKILL)
            raise child.error or CannotStart(f"the {post.duty.name} ended before it was ready: {cause}")
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
        self._tell_workers(signal.SIGTERM)
        self._launch.close_sockets()  # a worker's copy is the last one: who connects once it is closed is refused
        self._systemd.tell(STOPPING)
        self._state = State.STOPPING if self._children() else State.ENDED
        for post in self._posts:
            post.due = None
        settings = self._launch.settings
        self._deadline = time.monotonic() + settings.drain_delay + settings.drain_time + GRACE

    def _reload(self) -> None:
        """Take over what the next worker shall have, and let the present one do the same."""
        launched = self._launch
        try:
            settings, _ = read_again(launched.config, launched.settings)
            credentials = load_credentials(settings)
            warnings = find_warnings(settings)
            launched.journal.follow(log_files(settings))
        except AphlictError as error:
            log.error("the new configuration is refused, the old one stays in force: %s", error)
            launched.journal.reopen()
            self._tell_workers(signal.SIGUSR1)
            return
        launched.settings, launched.credentials = settings, credentials
        for sentence in warnings:
            log.warning("%s", sentence)
        self._tell_workers(signal.SIGHUP)

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
