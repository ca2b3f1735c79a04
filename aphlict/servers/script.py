"""The browser client as the client port serves it: aphlict.js, read once."""

import gzip
import hashlib
from functools import cache
from importlib.resources import files

from aphlict.servers.http import Exchange

MAX_AGE = 3600  # seconds that a browser may keep it without asking


class Script:
    """A script and its compressed twin, each with an ETag: a page of any origin may use it."""

    def __init__(self, text: bytes) -> None:
        tag = hashlib.sha256(text).hexdigest()[:32]
        self._plain = (text, f'"{tag}"')
        self._compressed = (gzip.compress(text, mtime=0), f'"{tag}-gzip"')

    def answer(self, exchange: Exchange) -> None:
        """Answer a GET or HEAD: 304 where the browser has it already."""
        accepted = exchange.headers.get("accept-encoding", "")
        compress = "gzip" in accepted
        body, etag = self._compressed if compress else self._plain
        headers = {
            "Content-Type": "text/javascript; charset=utf-8",
            "Cache-Control": f"public, max-age={MAX_AGE}",
            "ETag": etag,
            "Vary": "Accept-Encoding",
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "X-Content-Type-Options": "nosniff",
        }
        if etag in exchange.headers.get("if-none-match", ""):
            exchange.answer(304, b"", headers)
        else:
            exchange.answer(200, body, headers | ({"Content-Encoding": "gzip"} if compress else {}))


@cache
def load() -> Script:
    """Read the script from the package, once: later the process may have no right to."""
    return Script((files("aphlict") / "browser" / "aphlict.js").read_bytes())
