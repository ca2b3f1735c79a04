"""Signals as bytes in a pipe: the handlers only record, the work happens in the loop."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)

AT_ONCE = signal.SIGUSR2
"""From the supervisor to a worker that has been told to stop: a second SIGTERM could become one with the first."""

HELD = (*HANDLED, AT_ONCE)


@contextmanager
def recorded() -> Iterator[int]:
    """Give the descriptor from which `received` reads the signals of this process, in their order.

    A SIGHUP that is ignored stays so: nohup(1) asks for that.
    """
    receiver, sender = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    recorded = [each for each in HANDLED if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]
    before = {number: signal.signal(number, _record) for number in recorded}
    wakeup = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    try:
        yield receiver
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(receiver)
        os.close(sender)


def received(descriptor: int) -> list[int]:
    """The signals since the last call."""
    try:
        return list(os.read(descriptor, 4096))
    except BlockingIOError:
        return []


@contextmanager
def held_back() -> Iterator[None]:
    """Let signals wait: what is forked inside begins with them waiting, until it calls `let_through`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_child() -> None:
    """In a forked child: stop recording for the parent. Ctrl-C and a reload are the parent's business alone."""
    wakeup = signal.set_wakeup_fd(-1)
    if wakeup != -1:  # where asyncio has not reset it already, as it does after a fork since Python 3.12
        os.close(wakeup)
    for number in HANDLED:
        ignored = number in (signal.SIGINT, signal.SIGHUP)
        signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)


def let_through() -> None:
    """Receive what `held_back` kept waiting."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)


def describe_end(status: int) -> str:
    """What os.waitpid says, in words: `killed by SIGSEGV` or `exit status 3`."""
    code = os.waitstatus_to_exitcode(status)
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _record(number: int, frame: object) -> None:
    """Nothing: the number is in the pipe."""
