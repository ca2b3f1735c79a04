"""Log files: one line for what an operator can act on; they never fail or block the server."""

import logging
import os
import select
import time
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from traceback import extract_tb
from typing import Protocol

from aphlict.errors import FileError
from aphlict.printable import escape
from aphlict.process.privileges import Owner, is_out_of_reach, make_folder

WINDOW = 10.0  # seconds until the first count is told
LONGEST = 600.0  # seconds: what goes on for hours is told this often
ALIKE = 20  # lines in a window that differ only in their figures; more are counted
REMEMBERED = 256  # different lines


@dataclass
class _Seen:
    level: int
    text: str
    until: float
    window: float
    times: int = 0
    more: int = 0


class LogDeduplicator:
    """Says which lines to write; time is an argument.

    Each identical line is written once in a window, and of lines that one statement makes with changing
    figures the first 20; `tell` gives the lines that count the others.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._seen: dict[Hashable, _Seen] = {}

    def admits(self, template: str, level: int, text: str, now: float) -> bool:
        """Whether to write this line; it is counted otherwise."""
        same = self._seen.get((level, text))
        if same is not None:
            same.more += 1
            return False
        alike = self._entry(template, level, text, now)
        alike.times += 1
        alike.text = text
        if alike.times > ALIKE:
            alike.more += 1
            return False
        self._entry((level, text), level, text, now)
        return True

    def tell(self, now: float, *, all_of_them: bool = False) -> Iterator[tuple[int, str]]:
        """Give (level, line) for each count whose window has passed, and begin its next, longer window."""
        for key, seen in list(self._seen.items()):
            if now < seen.until and not all_of_them:
                continue
            if seen.more == 0:
                del self._seen[key]
                continue
            yield seen.level, self._count(key, seen)
            seen.window = min(seen.window * 2, LONGEST)
            seen.until = now + seen.window
            seen.more = 0
            seen.times = 1

    def _entry(self, key: Hashable, level: int, text: str, now: float) -> _Seen:
        if key not in self._seen:
            if len(self._seen) >= REMEMBERED:
                self._forget_one()
            self._seen[key] = _Seen(level, text, now + WINDOW, WINDOW)
        return self._seen[key]

    def _forget_one(self) -> None:
        """Make room: a single line rather than what counts all that are alike, and what has counted nothing first."""
        del self._seen[
            min(self._seen, key=lambda key: (not isinstance(key, tuple), self._seen[key].more > 0))
        ]

    @staticmethod
    def _count(key: Hashable, seen: _Seen) -> str:
        if isinstance(key, tuple):
            return f"{seen.text} … {seen.more:,} more time{'s' * (seen.more != 1)}"
        return f"… {seen.more:,} more line{'s' * (seen.more != 1)} like: {seen.text}"


FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
BOUNDED = {"aphlict.core.stats"}  # loggers that see to it themselves that they do not say too much
FRAMES = 5  # of a traceback
RETRY = 5.0  # seconds between two tries to open a file that cannot be opened


class Sink(Protocol):
    """Where lines go. Nothing here may raise but `open`."""

    lost: int  # lines, and not told of yet

    def open(self) -> None:
        """Open it the first time. Raises FileError."""

    def reopen(self) -> None:
        """Open it again, if that makes sense."""

    def write(self, line: str) -> None:
        """Write a line, or count it as lost."""

    def close(self) -> None:
        """Close it."""


class Stream:
    """Lines to a descriptor that is open anyway: the console."""

    def __init__(self, descriptor: int) -> None:
        """Write to this descriptor."""
        self.descriptor = descriptor
        self.lost = 0  # lines, and not told of yet

    def open(self) -> None:
        """It is open."""

    def reopen(self) -> None:
        """There is no other."""

    def close(self) -> None:
        """It is not ours."""

    def write(self, line: str) -> None:
        """Write, unless that would block or fail: the next line that succeeds says how many were lost."""
        if self.lost:
            lost = "1 line was" if self.lost == 1 else f"{self.lost:,} lines were"
            line = f"{stamp(logging.WARNING)} {lost} lost here\n{line}"
        if self._put(f"{line}\n".encode(errors="backslashreplace")):
            self.lost = 0
        else:
            self.lost += 1

    def _put(self, data: bytes) -> bool:
        poll = select.poll()  # select(2) takes no descriptor beyond 1,023
        try:
            poll.register(self.descriptor, select.POLLOUT)
            return bool(poll.poll(0)) and os.write(self.descriptor, data) == len(data)
        except (OSError, ValueError):  # a full disk, a reader that left; a file that is closed
            return False


class LogFile(Stream):
    """Lines to a file, which is followed when a log rotation moves it away."""

    def __init__(self, path: Path) -> None:
        """Name the file; `open` opens it."""
        super().__init__(-1)
        self.path = path
        self._identity = (0, 0)
        self._retry_at = 0.0

    def prepare(self, owner: Owner | None) -> None:
        """As root, before the rights are dropped: make folder and file so that the owner can write them."""
        make_folder(self.path.parent, owner)
        if owner is None or not is_out_of_reach(self.path.parent, owner):
            return  # `open` makes it, with the rights that the process has then
        try:
            descriptor = os.open(self.path, FLAGS | os.O_NOFOLLOW, 0o640)
        except OSError:
            return  # a link or a pipe: what the owner may do with it, `open` says
        owner.take_over(descriptor)
        os.close(descriptor)

    def open(self) -> None:
        """Make the folder and open for appending. Raises FileError."""
        make_folder(self.path.parent, None)
        try:
            self._open()
        except OSError as error:
            raise FileError(f"cannot write the log file {self.path}: {error.strerror}") from error

    def reopen(self) -> None:
        """Open what has the name now; keep the old file where that fails, so that nothing is lost."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            self._retry_at = time.monotonic() + RETRY
            super().write(
                f"{stamp(logging.WARNING)} cannot open {escape(str(self.path))} ({error.strerror}): going on here"
            )

    def write(self, line: str) -> None:
        """Follow the name, then write."""
        if time.monotonic() >= self._retry_at and self._moved():
            self.reopen()
        super().write(line)

    def close(self) -> None:
        """Close the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _open(self) -> None:
        descriptor = os.open(self.path, FLAGS, 0o640)
        self.close()
        self.descriptor = descriptor
        status = os.fstat(descriptor)
        self._identity = (status.st_dev, status.st_ino)
        self._retry_at = 0.0

    def _moved(self) -> bool:
        try:
            status = self.path.stat()
        except OSError:
            return True
        return self._identity != (status.st_dev, status.st_ino)


def open_all(sinks: Iterable[Sink]) -> None:
    """Open them. Raises FileError, with none left open."""
    with ExitStack() as undo:
        for sink in sinks:
            sink.open()
            undo.callback(sink.close)
        undo.pop_all()


class LogHandler(logging.Handler):
    """The one handler of the process: formats a record into one line, and hands it to every sink."""

    def __init__(self, sinks: Sequence[Sink], *, count_repeats: bool = True) -> None:
        """Open every sink; raises FileError, with none left open."""
        super().__init__()
        self._sinks = list(sinks)
        self._repeats = LogDeduplicator() if count_repeats else None
        open_all(sinks)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it."""
        try:
            text = one_line(record)
        except Exception:  # noqa: BLE001 -- arguments that do not fit their line must not harm the caller
            text = escape(f"{record.msg} (with arguments that do not fit)")
        if record.name in BOUNDED or self._admits(record, text):
            self._write(record.levelno, text)

    def _admits(self, record: logging.LogRecord, text: str) -> bool:
        repeats = self._repeats
        return repeats is None or repeats.admits(record.msg, record.levelno, text, time.monotonic())

    def tell_repeats(self, *, all_of_them: bool = False) -> None:
        """Write the counts that are due; to be called every few seconds."""
        with self._locked():
            if self._repeats is not None:
                for level, text in self._repeats.tell(time.monotonic(), all_of_them=all_of_them):
                    self._write(level, text)

    def reopen(self) -> None:
        """Open every file again under its name."""
        with self._locked():
            for sink in self._sinks:
                sink.reopen()

    def follow(self, files: Sequence[LogFile]) -> None:
        """Write to these files, which are open, instead of the present ones."""
        with self._locked():
            old = [sink for sink in self._sinks if isinstance(sink, LogFile)]
            lost = {file.path: file.lost for file in old}
            for file in files:
                file.lost = lost.get(file.path, 0)
            self._sinks = [*(sink for sink in self._sinks if sink not in old), *files]
        for sink in old:
            sink.close()

    def count_anew(self) -> None:
        """In a forked process: what was counted before is for the other one to tell."""
        self._repeats = self._repeats and LogDeduplicator()
        for sink in self._sinks:
            sink.lost = 0

    def close(self) -> None:
        """Write what is still counted and close every sink."""
        self.tell_repeats(all_of_them=True)
        for sink in self._sinks:
            sink.close()
        self._sinks = []
        super().close()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def _write(self, level: int, text: str) -> None:
        line = f"{stamp(level)} {text}"
        for sink in self._sinks:
            sink.write(line)


def install(journal: LogHandler, *, trace: bool) -> None:
    """Make it the process's only handler; with trace, every event is told."""
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(journal)
    root.setLevel(logging.DEBUG if trace else logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.INFO)
    logging.captureWarnings(capture=True)


def stamp(level: int) -> str:
    """`2026-11-21 03:29:11.123 +0100 WARNING [1234]`: the head of every line."""
    now = datetime.now().astimezone()
    when = f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03d} {now:%z}"
    return f"{when} {logging.getLevelName(level):<7} [{os.getpid()}]"


def one_line(record: logging.LogRecord) -> str:
    """The text of a record, with its exception folded into it."""
    text = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text = f"{text} {_fold(record.exc_info[1])}"
    return escape(text)


def _fold(error: BaseException) -> str:
    """`(ValueError: its text, at file.py:12 < caller.py:34)`."""
    frames = reversed(extract_tb(error.__traceback__)[-FRAMES:])
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    return f"({type(error).__name__}: {error}{', at ' if where else ''}{where})"
