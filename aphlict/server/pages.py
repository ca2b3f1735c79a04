"""The browser client as the client port serves it: aphlict.js, read once."""

import gzip
import hashlib
import re
from collections.abc import Callable
from enum import Enum
from functools import cache
from importlib.resources import files

from aphlict.errors import UpgradeRequired
from aphlict.protocol.http import PRIVATE
from aphlict.server.exchange import Exchange

MAX_AGE = 3600  # seconds that a browser may keep it without asking

_CODING = re.compile(r"([!#$%&'*+.^_`|~0-9a-z-]+)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")


class Script:
    """A script and its compressed twin, each with an ETag: a page of any origin may use it."""

    def __init__(self, text: bytes) -> None:
        tag = hashlib.sha256(text).hexdigest()[:32]
        self._plain = (text, f'"{tag}"')
        self._compressed = (gzip.compress(text, mtime=0), f'"{tag}-gzip"')

    def answer(self, exchange: Exchange) -> None:
        """Answer a GET or HEAD: 304 where the browser has it already."""
        compress = prefers_gzip(exchange.headers.get("accept-encoding", ""))
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


def prefers_gzip(accept_encoding: str) -> bool:
    """Whether gzip may be sent, and is not less welcome than no coding at all (RFC 9110, 12.5.3)."""
    weights: dict[str, float] = {}
    for each in accept_encoding.split(","):
        match = _CODING.fullmatch(each.strip(" \t").lower())
        if match is not None:
            weights[match[1]] = float(match[2] or 1)
    gzip = weights.get("gzip", weights.get("*", 0.0))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


@cache
def load() -> Script:
    """Read the script from the package, once: later the process may have no right to."""
    return Script((files("aphlict") / "browser" / "aphlict.js").read_bytes())


NO_CACHE = {"Cache-Control": "no-store", **PRIVATE}


class NodeState(Enum):
    """What a node does with new browsers."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    ERROR = "ERROR"


class Pages:
    """Answers the requests of a client port that ask for no upgrade."""

    def __init__(self, state: Callable[[], NodeState], script: Script) -> None:
        self._state = state
        self._script = script

    def handle(self, exchange: Exchange, /) -> None:
        """Answer one request; what a page is called is the end of the path, whatever a proxy put before."""
        reads = exchange.method in ("GET", "HEAD")
        if reads and exchange.path.endswith("/status"):
            self._answer_status(exchange)
        elif reads and exchange.path.endswith("/aphlict.js"):
            self._script.answer(exchange)
        else:
            raise UpgradeRequired("this port serves WebSockets: the request asked for no upgrade")

    def _answer_status(self, exchange: Exchange) -> None:
        state = self._state()
        status = 200 if state is NodeState.RUNNING else 503
        exchange.answer_json(status, {"state": state.value}, NO_CACHE)
