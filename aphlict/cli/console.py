"""What a command says: results on standard output, remarks and errors on standard error.

What cannot be printed is escaped: names, messages and errors may be a stranger's.
"""

import codecs
import io
import sys
from typing import Any

from aphlict.printable import escape, to_json


def prepare() -> None:
    """Make sure that no command fails by a letter that the terminal does not have."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # there may be none
        sys.stdout.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print a line of the result at once: a process that forks must not have it in a buffer."""
    print(escape(text), flush=True)


def say_json(value: Any) -> None:
    """Print a result as JSON: letters as they are in UTF-8, and all but ASCII escaped in any other encoding."""
    say(to_json(value, ascii_only=not _speaks_utf8()))


def reason(error: Exception) -> str:
    """What went wrong, for who reads it at night: no error numbers, and what to do where that is clear."""
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; is the server started? (aphlict status)"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _speaks_utf8() -> bool:
    return sys.stdout is not None and codecs.lookup(sys.stdout.encoding).name == "utf-8"


def remark(text: str) -> None:
    """Print a line that is not the result."""
    print(escape(text), file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Print an error."""
    remark(f"aphlict: {text}")
