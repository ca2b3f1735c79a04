"""What a starting process tells the one that waits for it: ready, or an error's sentence and exit status."""

import os

import msgspec

from aphlict.errors import AphlictError, CannotStart

LONGEST = 3000  # characters: a report must fit one atomic write to a pipe (PIPE_BUF is 4,096 bytes)


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


def send(descriptor: int, report: Report) -> None:
    """Write it into a pipe; a reader that is gone does not matter."""
    data = msgspec.json.encode(report)
    try:
        os.write(
            descriptor,
            data if len(data) <= 4096 else msgspec.json.encode(Report(sentence="the start failed", status=1)),
        )
    except BrokenPipeError:
        return


def receive(descriptor: int, who: str) -> None:
    """Wait for the report. Raises Failed with what it says, CannotStart when the process ended without one."""
    data = os.read(descriptor, 4096)
    if not data:
        raise CannotStart(f"the {who} ended before it was ready")
    check(msgspec.json.decode(data, type=Report))


def check(report: Report) -> None:
    """Raise Failed with what a report says, unless that is: ready."""
    if report.sentence is not None:
        raise Failed(report.sentence, report.status)
