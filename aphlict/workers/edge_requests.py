"""Requests of a hub to its edges: what it can ask, and which edges have yet to respond."""

import itertools
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Generic, TypeVar

from msgspec import Raw, Struct
from msgspec.msgpack import Decoder, encode

from aphlict.core.metrics import Samples
from aphlict.core.overview import ProcessOverview
from aphlict.core.stats import SubscriberStats
from aphlict.core.trace_report import ProcessReport, TraceQuery

ACK_TIMEOUT = 1.0  # seconds that edges have to confirm: publishers wait for 2 s
TRACE_TIMEOUT = 2.0

Edge = TypeVar("Edge")
Argument = TypeVar("Argument")
Result = TypeVar("Result")
Answer = Callable[[Raw], Awaitable[Raw]]  # of an edge


class Question(Generic[Argument, Result]):
    """What a hub can ask all its edges. They have `timeout` seconds; if they should answer promptly, one that takes
    longer is late for publishers as well."""

    def __init__(
        self,
        name: str,
        argument: type[Argument],
        result: type[Result],
        *,
        timeout: float = ACK_TIMEOUT,
        is_prompt: bool = True,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self.is_prompt = is_prompt
        self._decode_argument = Decoder(argument).decode
        self.decode_result = Decoder(result).decode

    def answered_by(self, function: Callable[[Argument], Awaitable[Result]]) -> tuple[str, Answer]:
        """Return the name of the question and how an edge answers it."""

        async def answer(argument: Raw) -> Raw:
            return Raw(encode(await function(self._decode_argument(argument))))

        return self.name, answer


def _ignore(_result: Raw) -> None:
    """Take the place of `on_result` for a response without a result."""


class EdgeStats(Struct, array_like=True):
    """The statistics of an edge, and of one instance there."""

    pid: int
    figures: SubscriberStats


class EdgeSamples(Struct, array_like=True):
    """The metrics of an edge; `process` is a name that no other process has."""

    process: str
    samples: Samples


STATS = Question("stats", str, EdgeStats)  # of an instance
METRICS = Question("metrics", type(None), EdgeSamples)
OVERVIEW = Question("overview", type(None), ProcessOverview, is_prompt=False)
TRACE = Question("trace", TraceQuery, ProcessReport, timeout=TRACE_TIMEOUT, is_prompt=False)


class _Pending(Generic[Edge]):
    """A request. `edges` have yet to respond."""

    __slots__ = ("deadline", "done", "edges", "is_prompt", "on_result")

    def __init__(
        self,
        edges: set[Edge],
        done: Callable[[], None],
        on_result: Callable[[Raw], None],
        timeout: float,
        *,
        is_prompt: bool,
    ) -> None:
        self.edges = edges
        self.done = done
        self.on_result = on_result
        self.deadline = time.monotonic() + timeout
        self.is_prompt = is_prompt


class PendingRequests(Generic[Edge]):
    """Requests to which edges have yet to respond."""

    def __init__(self) -> None:
        self._pending: dict[int, _Pending[Edge]] = {}
        self._numbers = itertools.count(1)

    def add(
        self,
        edges: set[Edge],
        done: Callable[[], None],
        on_result: Callable[[Raw], None] = _ignore,
        timeout: float = ACK_TIMEOUT,
        *,
        is_prompt: bool = True,
    ) -> int:
        """Return the number of a new request. `on_result` receives what each edge replies; `done` is called when all
        of these edges have responded, or have been given up."""
        number = next(self._numbers)
        self._pending[number] = _Pending(edges, done, on_result, timeout, is_prompt=is_prompt)
        return number

    def on_response(self, number: int, edge: Edge, result: Raw | None = None) -> None:
        """An edge has responded. A response that comes too late is ignored."""
        pending = self._pending.get(number)
        if pending is None:
            return
        if result is not None:
            pending.on_result(result)
        pending.edges.discard(edge)
        if not pending.edges:
            self.complete(number)

    def on_lost(self, edge: Edge) -> None:
        """Wait no longer for an edge."""
        for number in list(self._pending):
            self.on_response(number, edge)

    def complete(self, number: int) -> None:
        """Wait no longer for any edge."""
        self._pending.pop(number).done()

    def expire(self, now: float) -> Iterator[Collection[Edge]]:
        """Complete the requests whose time is over; before, yield the edges that are late for publishers."""
        for number in [number for number, each in self._pending.items() if now > each.deadline]:
            pending = self._pending[number]
            if pending.is_prompt:
                yield pending.edges
            self.complete(number)
