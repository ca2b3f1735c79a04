"""The log: one line per record, repeats are counted, and no file or disk ever blocks or stops the server."""

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

MIN_WINDOW = 10.0  # seconds until the first count of a repeated line
MAX_WINDOW = 600.0  # seconds between two counts of a line that is repeated for hours
MAX_SIMILAR = 20  # lines of one statement in a window; further ones are counted
MAX_TRACKED = 256  # different lines
FILE_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
LIMITED_LOGGERS = {"aphlict.core.stats"}  # loggers that limit and count their lines themselves
MAX_FRAMES = 5  # of a traceback
REOPEN_INTERVAL = 5.0  # seconds between two attempts to open a log file


@dataclass
class _Count:
    level: int
    text: str
    until: float
    window: float
    written: int = 0
    suppressed: int = 0


class LogDeduplicator:
    """Decides which lines are written, and counts the others. Does not read the clock.

    In each window, an identical line is written once; of lines of one statement that differ in their arguments, the
    first MAX_SIMILAR are written. `flush` returns the counts.
    """

    def __init__(self) -> None:
        # (level, text) of a line, or the template of a statement
        self._counts: dict[Hashable, _Count] = {}

    def allow(self, template: str, level: int, text: str, now: float) -> bool:
        """Whether to write this line; otherwise it is counted."""
        same = self._counts.get((level, text))
        if same is not None:
            same.suppressed += 1
            return False
        similar = self._entry(template, level, text, now)
        similar.written += 1
        similar.text = text
        if similar.written > MAX_SIMILAR:
            similar.suppressed += 1
            return False
        self._entry((level, text), level, text, now)
        return True

    def flush(self, now: float, *, everything: bool = False) -> Iterator[tuple[int, str]]:
        """Yield (level, line) for each count whose window has passed, and begin its next, longer window."""
        for key, count in list(self._counts.items()):
            if now < count.until and not everything:
                continue
            if count.suppressed == 0:
                del self._counts[key]
                continue
            yield count.level, self._describe(key, count)
            count.window = min(count.window * 2, MAX_WINDOW)
            count.until = now + count.window
            count.suppressed = 0
            count.written = 1

    def _entry(self, key: Hashable, level: int, text: str, now: float) -> _Count:
        if key not in self._counts:
            if len(self._counts) >= MAX_TRACKED:
                self._evict()
            self._counts[key] = _Count(level, text, now + MIN_WINDOW, MIN_WINDOW)
        return self._counts[key]

    def _evict(self) -> None:
        """Evict an entry: that of a line before that of a statement, and one without a count first."""
        del self._counts[
            min(self._counts, key=lambda key: (not isinstance(key, tuple), self._counts[key].suppressed > 0))
        ]

    @staticmethod
    def _describe(key: Hashable, count: _Count) -> str:
        more, plural = count.suppressed, "s" * (count.suppressed != 1)
        if isinstance(key, tuple):
            return f"{count.text} … {more:,} more time{plural}"
        return f"… {more:,} more line{plural} like: {count.text}"


class Sink(Protocol):
    """A destination of lines. Only `open` may raise."""

    lost: int  # lines that could not be written and have not been reported

    def open(self) -> None:
        """Open it the first time. Raises FileError."""

    def reopen(self) -> None:
        """Open it again, if it is a file."""

    def write(self, line: str) -> None:
        """Write a line, or count it as lost."""

    def close(self) -> None:
        """Close it."""


class StreamSink:
    """Writes lines to a descriptor that is open: the console."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lost = 0

    def open(self) -> None:
        """Do nothing: it is open."""

    def reopen(self) -> None:
        """Do nothing: it has no name."""

    def close(self) -> None:
        """Do nothing: the caller opened it."""

    def write(self, line: str) -> None:
        """Write a line, unless that would block or fail; the next line that succeeds reports how many were lost."""
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
        except (OSError, ValueError):  # a full disk, a reader that has exited, a closed file
            return False


class LogFile(StreamSink):
    """Writes lines to a file, and opens a new one when a log rotation has renamed it."""

    def __init__(self, path: Path) -> None:
        super().__init__(-1)
        self.path = path
        self._identity = (0, 0)
        self._reopen_at = 0.0

    def prepare(self, owner: Owner | None) -> None:
        """As root, before dropping privileges: create folder and file so that the owner can write them."""
        make_folder(self.path.parent, owner)
        if owner is None or not is_out_of_reach(self.path.parent, owner):
            return  # `open` creates it, with the privileges that the process has then
        try:
            descriptor = os.open(self.path, FILE_FLAGS | os.O_NOFOLLOW, 0o640)
        except OSError:
            return  # a link or a pipe: `open` fails if the owner may not write to it
        owner.take_over(descriptor)
        os.close(descriptor)

    def open(self) -> None:
        """Create the folder and open the file for appending. Raises FileError."""
        make_folder(self.path.parent, None)
        try:
            self._open()
        except OSError as error:
            raise FileError(f"cannot write the log file {self.path}: {error.strerror}") from error

    def reopen(self) -> None:
        """Open the file that has the name now. If that fails, keep the old one, so that no line is lost."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            self._reopen_at = time.monotonic() + REOPEN_INTERVAL
            text = f"cannot open {escape(str(self.path))} ({error.strerror}), continuing in this file"
            super().write(f"{stamp(logging.WARNING)} {text}")

    def write(self, line: str) -> None:
        """Write a line, to a new file if this one was renamed or deleted."""
        if time.monotonic() >= self._reopen_at and self._was_moved():
            self.reopen()
        super().write(line)

    def close(self) -> None:
        """Close the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _open(self) -> None:
        descriptor = os.open(self.path, FILE_FLAGS, 0o640)
        self.close()
        self.descriptor = descriptor
        status = os.fstat(descriptor)
        self._identity = (status.st_dev, status.st_ino)
        self._reopen_at = 0.0

    def _was_moved(self) -> bool:
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
    """The only handler of the process: formats each record as one line, and writes it to every sink."""

    def __init__(self, sinks: Sequence[Sink], *, count_repeats: bool = True) -> None:
        """Open every sink; raises FileError, with none left open."""
        super().__init__()
        self._sinks = list(sinks)
        self._deduplicator = LogDeduplicator() if count_repeats else None
        open_all(sinks)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it."""
        try:
            text = one_line(record)
        except Exception:  # noqa: BLE001 -- wrong arguments of a log call must not harm the caller
            text = escape(f"{record.msg} (invalid arguments)")
        if record.name in LIMITED_LOGGERS or self._allow(record, text):
            self._write(record.levelno, text)

    def _allow(self, record: logging.LogRecord, text: str) -> bool:
        deduplicator = self._deduplicator
        if deduplicator is None:
            return True
        return deduplicator.allow(record.msg, record.levelno, text, time.monotonic())

    def flush_repeats(self, *, everything: bool = False) -> None:
        """Write the counts that are due; to be called every few seconds."""
        with self._locked():
            if self._deduplicator is not None:
                for level, text in self._deduplicator.flush(time.monotonic(), everything=everything):
                    self._write(level, text)

    def reopen(self) -> None:
        """Open every file again under its name."""
        with self._locked():
            for sink in self._sinks:
                sink.reopen()

    def replace_files(self, files: Sequence[LogFile]) -> None:
        """Write to these files, which are open, instead of the current ones."""
        with self._locked():
            old = [sink for sink in self._sinks if isinstance(sink, LogFile)]
            lost = {file.path: file.lost for file in old}
            for file in files:
                file.lost = lost.get(file.path, 0)
            self._sinks = [*(sink for sink in self._sinks if sink not in old), *files]
        for sink in old:
            sink.close()

    def reset_counts(self) -> None:
        """In a forked process: drop the counts, which the other process writes."""
        self._deduplicator = self._deduplicator and LogDeduplicator()
        for sink in self._sinks:
            sink.lost = 0

    def close(self) -> None:
        """Write the remaining counts, and close every sink."""
        self.flush_repeats(everything=True)
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


def install(handler: LogHandler, *, trace: bool) -> None:
    """Make it the only handler of the process; `trace` logs every event."""
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if trace else logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.INFO)
    # Tornado's warnings about connections to peers name no peer: our own line has name and cause.
    logging.getLogger("tornado.general").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)


def stamp(level: int) -> str:
    """The start of every line: `2026-11-21 03:29:11.123 +0100 WARNING [1234]`."""
    now = datetime.now().astimezone()
    when = f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03d} {now:%z}"
    return f"{when} {logging.getLevelName(level):<7} [{os.getpid()}]"


def one_line(record: logging.LogRecord) -> str:
    """The text of a record, with its exception and traceback in brackets."""
    text = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text = f"{text} {_describe_error(record.exc_info[1])}"
    return escape(text)


def _describe_error(error: BaseException) -> str:
    """`(ValueError: its text, at file.py:12 < caller.py:34)`."""
    frames = reversed(extract_tb(error.__traceback__)[-MAX_FRAMES:])
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    return f"({type(error).__name__}: {error}{', at ' if where else ''}{where})"
