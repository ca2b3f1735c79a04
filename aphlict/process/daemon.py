"""Daemonizing, and notifications to systemd."""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from aphlict import log_events
from aphlict.process.channel import ReportPipe, StartupReport, receive_report

log = logging.getLogger(__name__)

OPEN_FILES = Path("/proc/self/fd")
READY = "READY=1"
STOPPING = "STOPPING=1"


def open_descriptors() -> frozenset[int]:
    """The descriptors that are open now. Called before anything is opened, these are the caller's."""
    return frozenset(
        number for number in [int(entry.name) for entry in OPEN_FILES.iterdir()] if _is_open(number)
    )


def detach(serve: Callable[[ReportPipe], int], inherited: frozenset[int]) -> None:
    """Run serve(pipe) in a process of its own session; return when it has reported that it is ready.

    Raises ReportedError or StartFailed if it does not become ready. The background process closes the `inherited`
    descriptors of the caller: a program that waits for their end must not wait for the server's.
    """
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        _leave_session(serve, ReportPipe(sender), inherited)
    os.close(sender)
    os.waitpid(child, 0)
    try:
        receive_report(receiver)
    finally:
        os.close(receiver)


def _leave_session(serve: Callable[[ReportPipe], int], pipe: ReportPipe, inherited: frozenset[int]) -> None:
    """Fork again, so that the server does not lead its session and cannot acquire a terminal; does not return."""
    status = 1
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        _close_inherited(inherited - {pipe.fileno()})
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # no terminal can send it: it can only mean a reload
        status = serve(pipe)
    except BaseException as error:  # noqa: BLE001 -- the last frame of this process: report, then exit
        pipe.send(StartupReport.from_error(error))
    finally:
        os._exit(status)


def _close_inherited(inherited: frozenset[int]) -> None:
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for descriptor in inherited | {null}:
        if descriptor > 2:
            os.close(descriptor)


def _is_open(descriptor: int) -> bool:
    """False for the descriptor that listed the folder."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class Systemd:
    """The notification socket that systemd passes in NOTIFY_SOCKET (sd_notify(3)); None: started otherwise."""

    def __init__(self, address: str | None) -> None:
        # A leading @ is an abstract address (unix(7)).
        self._address = "\0" + address[1:] if address and address.startswith("@") else address

    def notify(self, state: str) -> None:
        """Send a state."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(state.encode(), self._address)
        except OSError as error:
            first, *_ = state.split("\n")
            log.warning(log_events.SYSTEMD_NOT_NOTIFIED, first, error.strerror)

    def notify_reloading(self) -> None:
        """Report the start of a reload; READY has to follow."""
        self.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
