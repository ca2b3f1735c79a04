"""The log: one line per record, repeats are counted, and no file or disk ever blocks or stops the server."""

import logging
import os
import select
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from aphlict.core.overview import MAX_EVENT_TEXT, LoggedEvent, RecentEvents
from aphlict.errors import FileError
from aphlict.log_events import LINES_LOST, LOG_FILE_NOT_OPENED, Lines
from aphlict.process.log_line import FORMATS, LogLine, Stamp, make_line, read_record
from aphlict.process.privileges import Owner, is_out_of_reach, make_folder
from aphlict.process.repeats import LogDeduplicator

FILE_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
LIMITED_LOGGERS = {"aphlict.core.stats"}  # loggers that limit and count their lines themselves
RECENT_LEVEL = logging.INFO  # of the lines that the overview shows, whatever the files contain
REOPEN_INTERVAL = 5.0  # seconds between two attempts to open a log file


class Sink(Protocol):
    """A destination of lines. Only `open` may raise."""

    lost: int  # lines that could not be written and have not been reported
    level: int | None  # the least that is written; None is the default

    def open(self) -> None:
        """Open it the first time. Raises FileError."""

    def reopen(self, stamp: Stamp) -> None:
        """Open it again, if it is a file."""

    def write(self, line: LogLine, stamp: Stamp) -> None:
        """Write a line, or count it as lost."""

    def close(self) -> None:
        """Close it."""


class StreamSink:
    """Writes lines to a descriptor that is open: the console."""

    def __init__(self, descriptor: int, line_format: str = "text", level: int | None = None) -> None:
        self.descriptor = descriptor
        self.lost = 0
        self.level = level
        self._format = FORMATS[line_format]

    def open(self) -> None:
        """Do nothing: it is open."""

    def reopen(self, _stamp: Stamp, /) -> None:
        """Do nothing: it has no name."""

    def close(self) -> None:
        """Do nothing: the caller opened it."""

    def write(self, line: LogLine, stamp: Stamp) -> None:
        """Write a line, unless that would block or fail; the next line that succeeds reports how many were lost."""
        text = f"{self._format(line, stamp)}\n"
        if self.lost:
            lost = make_line(logging.WARNING, LINES_LOST, Lines(self.lost))
            text = f"{self._format(lost, stamp)}\n{text}"
        if self._put(text.encode(errors="backslashreplace")):
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

    def __init__(self, path: Path, line_format: str = "text", level: int | None = None) -> None:
        super().__init__(-1, line_format, level)
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

    def reopen(self, stamp: Stamp, /) -> None:
        """Open the file that has the name now. If that fails, keep the old one, so that no line is lost."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            self._reopen_at = time.monotonic() + REOPEN_INTERVAL
            super().write(make_line(logging.WARNING, LOG_FILE_NOT_OPENED, self.path, error.strerror), stamp)

    def write(self, line: LogLine, stamp: Stamp) -> None:
        """Write a line, to a new file if this one was renamed or deleted."""
        if time.monotonic() >= self._reopen_at and self._was_moved():
            self.reopen(stamp)
        super().write(line, stamp)

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
    """The only handler of the process: formats each record as one line, and writes it to every sink.

    `trace`: write every event, and count no repeats. `recent` has the last lines of this process, and its role, for
    JSON; `on_event` receives each of them.
    """

    def __init__(self, sinks: Sequence[Sink], *, trace: bool = False) -> None:
        """Open every sink; raises FileError, with none left open."""
        super().__init__()
        self.recent = RecentEvents("supervisor")
        self.on_event: Callable[[LoggedEvent], None] | None = None
        self._default_level = logging.DEBUG if trace else logging.INFO
        self._sinks = list(sinks)
        self._deduplicator = None if trace else LogDeduplicator()
        self._logger: logging.Logger | None = None
        open_all(sinks)

    def install(self, logger: logging.Logger) -> None:
        """Make it the only handler of a logger, whose level follows those of the sinks."""
        for old in logger.handlers[:]:
            logger.removeHandler(old)
        logger.addHandler(self)
        self._logger = logger
        self._set_level()

    def _set_level(self) -> None:
        if self._logger is not None:
            levels = [self._level(sink) for sink in self._sinks] or [self._default_level]
            self._logger.setLevel(min(RECENT_LEVEL, *levels))

    def _level(self, sink: Sink) -> int:
        return self._default_level if sink.level is None else sink.level

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it."""
        line = read_record(record)
        if record.name in LIMITED_LOGGERS or self._allow(line):
            self._write(line)

    def _allow(self, line: LogLine) -> bool:
        """Whether to write a line now. A file that asks for DEBUG lines gets all of them."""
        if self._deduplicator is None or line.level <= logging.DEBUG:
            return True
        return self._deduplicator.allow(line, time.monotonic())

    def flush_repeats(self, *, everything: bool = False) -> None:
        """Write the counts that are due; to be called every few seconds."""
        with self._locked():
            if self._deduplicator is not None:
                for line in self._deduplicator.flush(time.monotonic(), everything=everything):
                    self._write(line)

    def reopen(self) -> None:
        """Open every file again under its name."""
        with self._locked():
            for sink in self._sinks:
                sink.reopen(Stamp.now(self.recent.process))

    def replace_files(self, files: Sequence[LogFile]) -> None:
        """Write to these files, which are open, instead of the current ones."""
        with self._locked():
            old = [sink for sink in self._sinks if isinstance(sink, LogFile)]
            lost = {file.path: file.lost for file in old}
            for file in files:
                file.lost = lost.get(file.path, 0)
            self._sinks = [*(sink for sink in self._sinks if sink not in old), *files]
            self._set_level()
        for sink in old:
            sink.close()

    def reset_counts(self) -> None:
        """In a forked process: drop the counts, which the other process writes, and report to nobody."""
        self.on_event = None
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

    def _write(self, line: LogLine) -> None:
        stamp = Stamp.now(self.recent.process)
        for sink in self._sinks:
            if line.level >= self._level(sink):
                sink.write(line, stamp)
        if line.level >= RECENT_LEVEL:
            self._remember(line, stamp)

    def _remember(self, line: LogLine, stamp: Stamp) -> None:
        level = logging.getLevelName(line.level).lower()
        text = line.text[:MAX_EVENT_TEXT]
        event = LoggedEvent(stamp.when.timestamp(), level, line.event, stamp.process, text)
        self.recent.add(event)
        if self.on_event is not None:
            self.on_event(event)


def install(handler: LogHandler) -> None:
    """Make it the only handler of the process."""
    handler.install(logging.getLogger())
    logging.getLogger("asyncio").setLevel(logging.INFO)
    # Tornado's warnings about connections to peers name no peer: our own line has name and cause.
    logging.getLogger("tornado.general").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)
