"""The console: the page, script and style that an admin port serves to browsers."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from aphlict.errors import NotFound
from aphlict.protocol.http import PRIVATE, Request
from aphlict.server.http_connection import HTTPConnection

CONSOLE_PATH = "/console"
PAGE = "index.html"
# By the suffix of a file; others are not served.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
# Nothing from elsewhere, nothing inline, and no page of others may show this one in a frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FIELDS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    **PRIVATE,
}


class _File(NamedTuple):
    """A file of the console, and its header fields."""

    body: bytes
    fields: dict[str, str]


class ConsoleFiles:
    """The files of the console, by the path of their request."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        """`contents`: by the name of the file."""
        self._files: dict[str, _File] = {}
        for name, body in contents.items():
            suffix = name[name.rfind(".") :]
            if suffix in TYPES:
                etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
                path = CONSOLE_PATH if name == PAGE else f"{CONSOLE_PATH}/{name}"
                self._files[path] = _File(body, {"Content-Type": TYPES[suffix], "ETag": etag, **FIELDS})

    @property
    def paths(self) -> list[str]:
        """Return the paths of the files."""
        return list(self._files)

    def respond(self, connection: HTTPConnection, request: Request) -> None:
        """Respond to a GET or HEAD; with 304 if the browser has the file. Raises NotFound."""
        found = self._files.get(request.path)
        if found is None:
            raise NotFound(f"not found: the console is at {CONSOLE_PATH}")
        if found.fields["ETag"] in request.headers.get("if-none-match", ""):
            connection.respond_to(request, 304, found.fields)
        else:
            connection.respond_to(request, 200, found.fields, found.body)


def is_console(path: str) -> bool:
    """Whether a path is that of the console, or of one of its files."""
    return path == CONSOLE_PATH or path.startswith(f"{CONSOLE_PATH}/")


@cache
def load_console() -> ConsoleFiles:
    """Read the files from the package, once: the process may lose the right to read them."""
    folder = files("aphlict") / "console"
    return ConsoleFiles({each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()})
