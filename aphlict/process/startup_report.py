"""What a starting process tells the one that waits for it: ready, or an error's sentence and exit status."""

import contextlib
import os

import msgspec

from aphlict.errors import AphlictError, StartFailed

PIPE_BUF = 4096  # bytes that are written to a pipe at once (pipe(7))
LONGEST = 3000  # characters of a sentence: a report must fit one such write


class Report(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One report; without a sentence it means: ready."""

    sentence: str | None = None
    status: int = 0


class Failed(AphlictError):
    """An error that another process reported, with that error's exit status."""

    def __init__(self, sentence: str, status: int) -> None:
        """Take both over."""
        super().__init__(sentence)
        self.exit_status = status


READY = Report()


def about(error: BaseException) -> Report:
    """The report for an error; one that is not ours is named by its type."""
    if isinstance(error, AphlictError):
        return Report(sentence=str(error)[:LONGEST], status=error.exit_status)
    return Report(sentence=f"{type(error).__name__}: {error}"[:LONGEST], status=1)


class Sender:
    """The end of a pipe that takes one report. It closes with it: the descriptor is another file's soon."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Its descriptor; -1 once it is closed."""
        return self._descriptor

    def send(self, report: Report) -> None:
        """Send it, unless one was sent before. A reader that is gone does not matter."""
        if self._descriptor < 0:
            return
        data = msgspec.json.encode(report)
        if len(data) > PIPE_BUF:
            data = msgspec.json.encode(Report(sentence="the start failed", status=1))
        with contextlib.suppress(BrokenPipeError):
            os.write(self._descriptor, data)
        self.close()

    def close(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def receive(descriptor: int, who: str) -> None:
    """Wait for the report. Raises Failed with what it says, StartFailed when the process ended without one."""
    data = os.read(descriptor, PIPE_BUF)
    if not data:
        raise StartFailed(f"the {who} ended before it was ready")
    check(msgspec.json.decode(data, type=Report))


def check(report: Report) -> None:
    """Raise Failed with what a report says, unless that is: ready."""
    if report.sentence is not None:
        raise Failed(report.sentence, report.status)
