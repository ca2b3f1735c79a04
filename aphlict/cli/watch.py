"""`status --watch`: the overview of a running server, again and again."""

import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from aphlict.cli.console import out, out_json
from aphlict.cli.overview_text import clock, describe_overview
from aphlict.config.settings import Settings
from aphlict.core.overview import OVERVIEW_PATH
from aphlict.doctor.admin_client import request_json
from aphlict.errors import AdminUnreachable
from aphlict.printable import escape

# ECMA-48: cursor to the first line; erase the rest of the line; erase everything below.
HOME, ERASE_LINE, ERASE_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
CLEAR = f"{HOME}\x1b[2J"


def watch(settings: Settings, seconds: float, *, as_json: bool) -> int:
    """Print the overview every few seconds until Ctrl-C, on a terminal always in the same place.

    A server that does not respond is reported, and asked again. Raises ConfigError for a secret that cannot be read.
    """
    is_screen = not as_json and sys.stdout.isatty()
    try:
        if is_screen:
            _write(CLEAR)
        while True:
            overview = _request(settings)
            if as_json:
                out_json(overview)
            elif is_screen:
                _draw(_describe(overview))
            else:
                for line in _describe(overview):
                    out(line)
            time.sleep(seconds)
    except KeyboardInterrupt:
        if is_screen:
            _write("\n")
    return 0


def _request(settings: Settings) -> dict[str, Any]:
    try:
        found: dict[str, Any] = request_json(settings, "GET", OVERVIEW_PATH)
    except AdminUnreachable as error:
        return {"time": time.time(), "error": str(error), "code": error.code}
    return found


def _describe(overview: dict[str, Any]) -> Iterator[str]:
    if "error" in overview:
        yield f"{clock(overview['time'])}  {overview['error']}"
    else:
        yield from describe_overview(overview)


def _draw(lines: Iterable[str]) -> None:
    """Replace what the terminal shows, without flicker: by as many lines as it has."""
    width, height = shutil.get_terminal_size()
    shown = [f"{escape(line)[:width]}{ERASE_LINE}" for line in lines][: max(1, height - 1)]
    _write(HOME + "\n".join(shown) + ERASE_BELOW)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
