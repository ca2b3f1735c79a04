"""A line of the log: its sentence, event and data, as text or as JSON."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from pathlib import Path
from traceback import extract_tb
from typing import NamedTuple

from aphlict.errors import AphlictError
from aphlict.log_events import LIBRARY, Aside, Lines, LogEvent, Times
from aphlict.printable import escape, to_json

MAX_FRAMES = 5  # of a traceback


@dataclass(frozen=True)
class LogLine:
    """A line without time and process. `text` is printable; `template` is what lines of one statement share.

    `data` has the values of the event by name; they keep no other object alive.
    """

    level: int
    text: str
    template: str = ""
    event: str = LIBRARY
    data: Mapping[str, object] = field(default_factory=dict)


class Stamp(NamedTuple):
    """When and by which process a line is written."""

    when: datetime
    process: str  # its role, as "worker"
    pid: int

    @classmethod
    def now(cls, process: str) -> "Stamp":
        """The current time."""
        return cls(datetime.now().astimezone(), process, os.getpid())


def make_line(level: int, event: LogEvent, *values: object) -> LogLine:
    """A line that is not a record of `logging`."""
    data = dict(_name_values(event, values))
    return LogLine(level, escape(event % values), event, event.code, data)


def read_record(record: logging.LogRecord) -> LogLine:
    """The line of a record; wrong arguments of the log call must not harm the caller."""
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 -- see above
        text = f"{record.msg} (invalid arguments)"
    event, data = LIBRARY, dict[str, object](logger=record.name)
    if isinstance(record.msg, LogEvent):
        values = record.args if isinstance(record.args, tuple) else (record.args,)
        event, data = record.msg.code, dict(_name_values(record.msg, values))
    if record.exc_info and (error := record.exc_info[1]) is not None:
        data["error"], data["at"] = f"{type(error).__name__}: {error}", list(_frames(error))
        text = f"{text} {_describe_error(error)}"
    return LogLine(record.levelno, escape(text), str(record.msg), event, data)


def _name_values(event: LogEvent, values: tuple[object, ...]) -> Iterator[tuple[str, object]]:
    for name, value in zip(event.fields, values, strict=False):
        inner = value.value if isinstance(value, Aside | Lines | Times) else value
        if inner is not None and inner != "":
            yield name, _simplify(inner)
        if isinstance(inner, AphlictError):
            yield "code", inner.code


def _simplify(value: object) -> object:
    """A value for JSON. Unknown objects become the text that is in the sentence."""
    match value:
        case str():
            return str(value)
        case None | bool() | int():
            return value
        case float():
            return round(value, 3) if isfinite(value) else str(value)
        case Mapping():
            return {str(key): _simplify(each) for key, each in value.items()}
        case tuple() if isinstance(getattr(value, "_fields", None), tuple):
            return {name: _simplify(getattr(value, name)) for name in getattr(value, "_fields", ())}
        case tuple() | list():
            return [_simplify(each) for each in value]
    return str(value)


def _describe_error(error: BaseException) -> str:
    """`(ValueError: its text, at file.py:12 < caller.py:34)`."""
    where = " < ".join(_frames(error))
    return f"({type(error).__name__}: {error}{', at ' if where else ''}{where})"


def _frames(error: BaseException) -> Iterator[str]:
    for frame in reversed(extract_tb(error.__traceback__)[-MAX_FRAMES:]):
        yield f"{Path(frame.filename).name}:{frame.lineno}"


def as_text(line: LogLine, stamp: Stamp) -> str:
    """`2026-11-21 03:29:11.123 +0100 WARNING [1234] sentence`."""
    when = f"{stamp.when:%Y-%m-%d %H:%M:%S}.{stamp.when.microsecond // 1000:03d} {stamp.when:%z}"
    return f"{when} {logging.getLevelName(line.level):<7} [{stamp.pid}] {line.text}"


def as_json(line: LogLine, stamp: Stamp) -> str:
    """One object: log_events.KEYS, then the data."""
    keys = {
        "time": stamp.when.isoformat(timespec="milliseconds"),
        "level": logging.getLevelName(line.level).lower(),
        "event": line.event,
        "process": stamp.process,
        "pid": stamp.pid,
        "message": line.text,
    }
    return to_json({**keys, **line.data})


LineFormat = Callable[[LogLine, Stamp], str]
FORMATS: Mapping[str, LineFormat] = {"text": as_text, "json": as_json}
