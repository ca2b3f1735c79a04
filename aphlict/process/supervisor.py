"""The supervisor: keeps the workers running and forwards signals to them. It carries no data."""

import contextlib
import errno
import logging
import math
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto

from aphlict import log_events
from aphlict.core.overview import LoggedEvent
from aphlict.errors import AphlictError, ReloadRejected, StartFailed
from aphlict.process import channel, signals
from aphlict.process.bootstrap import StartupContext
from aphlict.process.channel import Committed, Logged, Prepared, ReportPipe
from aphlict.process.daemon import READY, STOPPING, Systemd
from aphlict.process.reload import Reload
from aphlict.process.worker_process import WorkerProcess, WorkerSlot, plan_workers

log = logging.getLogger(__name__)

DRAIN_GRACE = 5.0  # seconds beyond drain.delay and drain.time until a worker is killed
ABORT_GRACE = 2.0  # seconds after the second signal until a worker is killed
FLUSH_INTERVAL = 5.0  # seconds between two calls of `LogHandler.flush_repeats`, at most


class SupervisorState(Enum):
    """The phases of a server."""

    STARTING = auto()  # until the first workers are ready: if one of them fails, the start fails
    RUNNING = auto()
    STOPPING = auto()
    STOPPED = auto()


class Supervisor:
    """Runs the workers. `starter` receives the report that the server accepts connections."""

    def __init__(self, context: StartupContext, starter: ReportPipe | None, systemd: Systemd) -> None:
        self._context = context
        self._starter = starter
        self._systemd = systemd
        self._state = SupervisorState.STARTING
        self._slots = [WorkerSlot(spec) for spec in plan_workers(context)]
        self._kill_at: float | None = None  # monotonic seconds
        self._exit_status = 0
        self._signal_pipe = -1
        self._has_terminal = _has_terminal()
        self._reloads = 0
        self._reload: Reload | None = None  # in progress
        self._reload_again = False
        context.log_handler.on_event = self._report_event

    def run(self) -> int:
        """Supervise until stopped; returns the exit status. Raises the error that kept the server from starting."""
        self._context.pidfile.write(os.getpid())
        with signals.recording() as self._signal_pipe:
            for slot in self._slots:
                self._spawn(slot)
            while self._state is not SupervisorState.STOPPED:
                self._run_once()
        return self._exit_status

    def _run_once(self) -> None:
        """One turn of the loop: messages, signals, deadlines."""
        channels = {each.channel.fileno(): each for each in self._processes() if each.channel.is_open}
        for descriptor in _wait_readable([self._signal_pipe, *channels], self._pause()):
            if descriptor != self._signal_pipe:
                self._on_messages(channels[descriptor])
        for number in signals.read_pending(self._signal_pipe):
            self._on_signal(number)
        self._on_time(time.monotonic())
        self._context.log_handler.flush_repeats()

    def _pause(self) -> float:
        """Seconds until the next deadline, FLUSH_INTERVAL at most."""
        deadline = min((each for each in self._deadlines() if each is not None), default=math.inf)
        return min(max(0.0, deadline - time.monotonic()), FLUSH_INTERVAL)

    def _deadlines(self) -> Iterator[float | None]:
        yield self._kill_at
        if self._reload is not None:
            yield self._reload.deadline
        if self._may_fork:
            yield from (slot.restart_at for slot in self._slots)

    @property
    def _may_fork(self) -> bool:
        """False while workers prepare a configuration: a new worker would not have it."""
        return self._reload is None or self._reload.is_committed

    def _processes(self) -> list[WorkerProcess]:
        return [slot.process for slot in self._slots if slot.process is not None]

    # Events

    def _on_messages(self, process: WorkerProcess) -> None:
        for response in process.receive():
            self._on_response(process, response)
        if not all(each.is_ready for each in self._processes()):
            return
        if self._state is SupervisorState.STARTING:
            self._state = SupervisorState.RUNNING
            self._systemd.notify(READY)
            if self._starter is not None:
                self._starter.send(channel.READY)

    def _on_response(self, process: WorkerProcess, response: Prepared | Committed) -> None:
        self._advance_reload(lambda reload: reload.on_response(process, response))

    def _report_event(self, event: LoggedEvent) -> None:
        """Pass a line of the log to the worker with the admin port, for the overview. One that is forked later
        inherits the lines before."""
        process = self._slots[0].process
        if process is not None and process.channel.is_open:
            with contextlib.suppress(OSError):  # it has exited, or does not read
                process.channel.send(Logged(event))

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop(signal.Signals(number).name)
        elif number == signal.SIGHUP:
            self._on_hangup()
        elif number == signal.SIGUSR1:
            log.info(log_events.LOGS_REOPENED)
            self._reopen_logs()
        elif number == signal.SIGCHLD:
            self._reap()

    def _on_hangup(self) -> None:
        """Reload; but if the terminal of `debug` was closed, stop."""
        if self._has_terminal and not _has_terminal():
            self._stop("the terminal was closed")
            return
        if self._state is not SupervisorState.STOPPING:
            self._start_reload()

    def _on_time(self, now: float) -> None:
        for slot in self._slots:
            if self._may_fork and slot.restart_at is not None and now >= slot.restart_at:
                self._spawn(slot)
        self._advance_reload(lambda reload: reload.on_time(now))
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            for process in self._processes():
                log.error(log_events.WORKER_KILLED, process.name, process.pid)
            self._signal_workers(signal.SIGKILL)

    # Start and stop

    def _spawn(self, slot: WorkerSlot) -> None:
        """Fork a worker, or schedule another try. Raises StartFailed while the server starts."""
        try:
            slot.spawn(self._context, self._close_copies)
        except OSError as error:
            if self._state is SupervisorState.STARTING:
                raise StartFailed(f"cannot start the {slot.spec.name}: {error.strerror}") from error
            slot.on_spawn_failed(error)

    def _close_copies(self) -> None:
        """In a forked worker: close the descriptors that only the supervisor uses."""
        os.close(self._signal_pipe)
        if self._starter is not None:
            self._starter.close()
        for process in self._processes():
            process.channel.close()

    def _reap(self) -> None:
        for slot in self._slots:
            process = slot.process
            status = process.reap() if process else None
            if process is None or status is None:
                continue
            slot.process = None
            self._on_exit(slot, process, status)

    def _on_exit(self, slot: WorkerSlot, process: WorkerProcess, status: int) -> None:
        cause = signals.describe_exit(status)
        self._advance_reload(lambda reload: reload.on_exit(process))
        if self._state is SupervisorState.STARTING:
            self._signal_workers(signal.SIGKILL)
            raise process.error or StartFailed(f"the {slot.spec.name} exited before it was ready: {cause}")
        if self._state is not SupervisorState.STOPPING:
            slot.on_exit(process, cause)
            return
        if status != 0:
            self._exit_status = 1
            log.error(log_events.UNCLEAN_SHUTDOWN, slot.spec.name, cause)
        if not self._processes():
            self._state = SupervisorState.STOPPED
            if self._exit_status == 0:
                log.info(log_events.STOPPED)

    def _stop(self, reason: str) -> None:
        """Stop gracefully the first time, immediately the second time."""
        if self._state is SupervisorState.STOPPING:
            log.warning(log_events.STOPPING_IMMEDIATELY, reason)
            self._signal_workers(signals.ABORT)
            self._kill_at = time.monotonic() + ABORT_GRACE
            return
        log.info(log_events.STOPPING, reason)
        if self._reload is not None and not self._reload.is_committed:
            self._reload.discard()
        self._reload, self._reload_again = None, False
        self._signal_workers(signal.SIGTERM)
        self._context.close_sockets()  # a port refuses connections when the last copy, a worker's, is closed
        self._systemd.notify(STOPPING)
        self._state = SupervisorState.STOPPING if self._processes() else SupervisorState.STOPPED
        for slot in self._slots:
            slot.restart_at = None
        settings = self._context.settings
        self._kill_at = time.monotonic() + settings.drain_delay + settings.drain_time + DRAIN_GRACE

    # Reload

    def _start_reload(self) -> None:
        """Apply the configuration as it is now in every worker, or in none."""
        if self._reload is not None:
            self._reload_again = True
            return
        self._systemd.notify_reloading()
        self._reloads += 1
        try:
            self._reload = Reload(self._reloads, self._context, self._processes())
        except (AphlictError, OSError) as error:
            self._reject_reload(error)
        self._advance_reload(lambda _: None)

    def _advance_reload(self, step: Callable[[Reload], None]) -> None:
        """Take a step of the reload that is in progress, if any, and end it if that was the last one."""
        if self._reload is None:
            return
        try:
            step(self._reload)
        except ReloadRejected as error:
            self._reload.discard()
            self._reject_reload(error)
        else:
            if self._reload.is_complete:
                log.info(log_events.RELOADED, self._context.config)
                self._end_reload()

    def _reject_reload(self, error: Exception) -> None:
        log.error(log_events.RELOAD_FAILED, error)
        self._reopen_logs()
        self._end_reload()

    def _end_reload(self) -> None:
        self._reload = None
        self._systemd.notify(READY)
        if self._reload_again:
            self._reload_again = False
            self._start_reload()

    def _reopen_logs(self) -> None:
        self._context.log_handler.reopen()
        self._signal_workers(signal.SIGUSR1)

    def _signal_workers(self, number: signal.Signals) -> None:
        for process in self._processes():
            os.kill(process.pid, number)  # it has not been reaped: the pid cannot belong to another process


def _wait_readable(descriptors: Iterable[int], seconds: float) -> list[int]:
    """Wait until some of these are readable, closed or in error; return them."""
    poll = select.poll()  # select(2) takes no descriptor beyond 1,023
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(math.ceil(seconds * 1000))]


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)  # which does not mean that there is none
    return True
