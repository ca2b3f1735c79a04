"""Going to the background, while the starter waits to hear how that went."""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from aphlict.process import startup_report as report

FOLDER = Path("/proc/self/fd")


def open_descriptors() -> frozenset[int]:
    """The descriptors that are open now; asked before anything is opened: those are our caller's."""
    return frozenset(number for number in [int(entry.name) for entry in FOLDER.iterdir()] if _is_open(number))


def detach(serve: Callable[[report.Sender], int], inherited: frozenset[int]) -> None:
    """Run serve(sender) in a process of its own session and return once it reported that it is ready.

    Raises Failed or StartFailed when it did not come to that. `inherited` are the caller's descriptors,
    which the background process closes: whoever waits for their end must not wait for the server's.
    """
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        _leave_session(serve, report.Sender(sender), inherited)
    os.close(sender)
    os.waitpid(child, 0)
    try:
        report.receive(receiver, "server")
    finally:
        os.close(receiver)


def _leave_session(
    serve: Callable[[report.Sender], int], sender: report.Sender, inherited: frozenset[int]
) -> None:
    """Fork again, so that the server leads no session and can never get a terminal; does not return."""
    status = 1
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        _let_go(inherited - {sender.fileno()})
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # no terminal can send it: it can only mean a reload
        status = serve(sender)
    except BaseException as error:  # noqa: BLE001 -- the last frame of this process: tell, then end
        sender.send(report.about(error))
    finally:
        os._exit(status)


def _let_go(inherited: frozenset[int]) -> None:
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    for descriptor in inherited | {null}:
        if descriptor > 2:
            os.close(descriptor)


def _is_open(descriptor: int) -> bool:
    """Whether it is more than the one that listed the folder."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


log = logging.getLogger(__name__)

READY = "READY=1"
STOPPING = "STOPPING=1"


class Systemd:
    """The socket that systemd named in NOTIFY_SOCKET, or nothing."""

    def __init__(self, address: str | None) -> None:
        """Tell this address; a leading @ is an abstract one."""
        self._address = "\0" + address[1:] if address and address.startswith("@") else address

    def tell(self, state: str) -> None:
        """Send one state."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(state.encode(), self._address)
        except OSError as error:
            log.warning("systemd could not be told %s: %s", state.split("\n", maxsplit=1)[0], error.strerror)

    def tell_reloading(self) -> None:
        """Say that the configuration is being read again; READY has to follow."""
        self.tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
