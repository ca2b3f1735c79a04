"""Traces of the edges, at their hub: requests, and the reports that come in time."""

import asyncio
import itertools
from collections.abc import Callable, Collection, Hashable
from contextlib import suppress

from aphlict.core.trace_report import ProcessReport, TraceQuery
from aphlict.workers.ipc import TraceReply, TraceRequest

TRACE_TIMEOUT = 2.0  # seconds for an edge; one that is slow does not count as late for publishers


class _Pending:
    """A request to edges."""

    def __init__(self, edges: Collection[Hashable]) -> None:
        self.edges = set(edges)
        self.reports: list[ProcessReport] = []
        self.is_complete = asyncio.Event()


class EdgeTraces:
    """The traces that a hub has requested of its edges."""

    def __init__(self) -> None:
        self._pending: dict[int, _Pending] = {}
        self._numbers = itertools.count(1)

    async def request(
        self, query: TraceQuery, edges: Collection[Hashable], send: Callable[[TraceRequest], None]
    ) -> list[ProcessReport]:
        """Request a trace with `send`; return the reports of the edges that respond within TRACE_TIMEOUT."""
        if not edges:
            return []
        number = next(self._numbers)
        pending = self._pending[number] = _Pending(edges)
        send(TraceRequest(number, query))
        with suppress(asyncio.TimeoutError):  # until Python 3.11 not the built-in TimeoutError
            await asyncio.wait_for(pending.is_complete.wait(), TRACE_TIMEOUT)
        del self._pending[number]
        return pending.reports

    def on_reply(self, edge: Hashable, reply: TraceReply) -> None:
        """Note the report of an edge."""
        if (pending := self._pending.get(reply.number)) is not None:
            pending.reports.append(reply.report)
            self._settle(pending, edge)

    def on_lost(self, edge: Hashable) -> None:
        """Wait no longer for an edge."""
        for pending in self._pending.values():
            self._settle(pending, edge)

    def _settle(self, pending: _Pending, edge: Hashable) -> None:
        pending.edges.discard(edge)
        if not pending.edges:
            pending.is_complete.set()
