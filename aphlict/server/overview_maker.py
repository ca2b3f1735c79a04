"""Makes the overview of a node: for all who ask together, and from samples that it takes regularly."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from msgspec.json import encode

from aphlict import __version__
from aphlict.core.metrics import Samples
from aphlict.core.overview import ProcessOverview, TimeSeries, describe_figures, describe_processes

MIN_INTERVAL = 2.0  # seconds between the starts of two overviews, however many ask for one


class NodeFacts(Protocol):
    """What a node knows of itself."""

    def facts(self) -> dict[str, Any]:
        """Return the members of an overview that are neither metrics nor lists of a process."""

    def metrics(self, done: Callable[[Samples], None], /) -> None:
        """Pass the metrics of all processes to `done`, now or later."""

    def survey(self) -> Coroutine[Any, Any, list[ProcessOverview]]:
        """Survey all processes."""

    def history_size(self, instance: str, /) -> int:
        """Return how many messages the history of an instance has."""


class OverviewMaker:
    """Makes the overviews of one node. `sample` must be called every SAMPLE_INTERVAL."""

    def __init__(self, node: NodeFacts) -> None:
        self._node = node
        self._series = TimeSeries()
        self._task: asyncio.Task[bytes] | None = None  # which makes the last overview
        self._began = 0.0

    def sample(self) -> None:
        """Take the samples of this moment for the series."""
        self._node.metrics(lambda samples: self._series.add(samples, time.monotonic(), time.time()))

    async def get(self) -> bytes:
        """Return an overview as JSON: the last one, if it is not older than MIN_INTERVAL."""
        now = time.monotonic()
        if self._task is None or (self._task.done() and now >= self._began + MIN_INTERVAL):
            self._task, self._began = asyncio.get_running_loop().create_task(self._make()), now
        return await asyncio.shield(self._task)

    async def _make(self) -> bytes:
        samples: asyncio.Future[Samples] = asyncio.get_running_loop().create_future()
        self._node.metrics(samples.set_result)
        processes = await self._node.survey()
        return encode(
            {
                "time": time.time(),
                "version": __version__,
                **self._node.facts(),
                **describe_figures(await samples),
                "series": self._series.as_dict(),
                **describe_processes(processes, self._node.history_size),
            }
        )
