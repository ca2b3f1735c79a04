"""The output of commands: results on standard output, notes and errors on standard error.

Unprintable characters are escaped: names, messages and errors may come from the network.
"""

import codecs
import io
import sys
from typing import Any

from aphlict.printable import escape, to_json


def prepare() -> None:
    """Escape characters that the terminal's encoding lacks, instead of raising an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # standard output may be closed
        sys.stdout.reconfigure(errors="backslashreplace")


def out(text: str) -> None:
    """Print a line of the result. It is flushed, so that a process that forks does not print it twice."""
    print(escape(text), flush=True)


def out_json(value: Any) -> None:
    """Print a result as JSON, which is ASCII unless the terminal's encoding is UTF-8."""
    out(to_json(value, ascii_only=not _is_utf8()))


def _is_utf8() -> bool:
    return sys.stdout is not None and codecs.lookup(sys.stdout.encoding).name == "utf-8"


def note(text: str) -> None:
    """Print a line that is not part of the result."""
    print(escape(text), file=sys.stderr, flush=True)


def error(text: str) -> None:
    """Print an error."""
    note(f"aphlict: {text}")
