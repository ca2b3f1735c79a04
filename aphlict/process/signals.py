"""Signals as bytes in a pipe: the handlers do nothing, the event loop reads the numbers."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)

ABORT = signal.SIGUSR2
"""From the supervisor to a worker that is draining. A second SIGTERM could merge with the first."""

BLOCKED = (*HANDLED, ABORT)


@contextmanager
def recording() -> Iterator[int]:
    """Record signals; the value is the descriptor for `read_pending`.

    A SIGHUP that is ignored stays ignored: nohup(1) asks for that.
    """
    receiver, sender = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    recorded = [each for each in HANDLED if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]
    before = {number: signal.signal(number, _do_nothing) for number in recorded}
    wakeup = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    try:
        yield receiver
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(receiver)
        os.close(sender)


def read_pending(descriptor: int) -> list[int]:
    """The signals since the last call, in order."""
    try:
        return list(os.read(descriptor, 4096))
    except BlockingIOError:
        return []


@contextmanager
def blocked() -> Iterator[None]:
    """Block signals. A process that is forked inside starts with them blocked, until it calls `unblock`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Receive the signals that `blocked` held back."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)


def reset_in_child() -> None:
    """In a forked child: stop recording. Only the supervisor reacts to Ctrl-C and SIGHUP."""
    wakeup = signal.set_wakeup_fd(-1)
    if wakeup != -1:  # since Python 3.12, asyncio has reset it already after a fork
        os.close(wakeup)
    for number in HANDLED:
        ignored = number in (signal.SIGINT, signal.SIGHUP)
        signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)


def describe_exit(status: int) -> str:
    """A status of os.waitpid in words: `killed by SIGSEGV` or `exit status 3`."""
    code = os.waitstatus_to_exitcode(status)
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _do_nothing(number: int, frame: object) -> None:
    """Python writes the number to the wakeup descriptor only if there is a handler."""
