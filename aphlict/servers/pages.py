"""What a client port answers to plain HTTP: the state for load balancers, aphlict.js; for all else, 501."""

from collections.abc import Callable
from enum import Enum

from aphlict.servers.http import Exchange
from aphlict.servers.script import Script
from aphlict.wire.answers import PRIVATE

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
            sentence = "this port serves WebSockets: the request asked for no upgrade"
            exchange.answer_json(501, {"error": sentence}, PRIVATE)

    def _answer_status(self, exchange: Exchange) -> None:
        state = self._state()
        status = 200 if state is NodeState.RUNNING else 503
        exchange.answer_json(status, {"state": state.value}, NO_CACHE)
