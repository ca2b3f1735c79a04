"""What a process reports for the overview: its largest clients, instances and channels, found in slices."""

import os
from collections.abc import Iterator
from heapq import heappush, heapreplace
from itertools import count
from typing import Generic, TypeVar

from aphlict.core.hub import Hub
from aphlict.core.overview import (
    MAX_CANDIDATES,
    ChannelSize,
    InstanceSize,
    ProcessOverview,
    RecentEvents,
    SlowClient,
)
from aphlict.core.subscriptions import Instance
from aphlict.server.auth import client_of
from aphlict.server.connection import Connection
from aphlict.server.server import Server
from aphlict.server.tracer import SLICE_STEP, run_in_slices, session_of

Item = TypeVar("Item")


class _Largest(Generic[Item]):
    """The largest items of those that are added one by one."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Item]] = []
        self._numbers = count(0, -1)  # of two items of one size, the first one is kept

    def add(self, size: int, item: Item) -> None:
        """Add an item."""
        if len(self._heap) < MAX_CANDIDATES:
            heappush(self._heap, (size, next(self._numbers), item))
        elif size > self._heap[0][0]:
            heapreplace(self._heap, (size, next(self._numbers), item))

    def items(self) -> list[Item]:
        """Return them, the largest first."""
        return [item for _, _, item in sorted(self._heap, key=lambda each: each[:2], reverse=True)]


class Surveyor:
    """Surveys one process."""

    def __init__(self, hub: Hub, server: Server, events: RecentEvents) -> None:
        self._hub = hub
        self._server = server
        self._events = events

    async def survey(self) -> ProcessOverview:
        """Survey this process, over several turns of the loop."""
        survey = _Survey(self._events.process, self._hub, self._server)
        await run_in_slices(survey.run())
        process = self._server.process
        return ProcessOverview(
            self._events.process,
            os.getpid(),
            self._hub.connections,
            process.memory(),
            self._server.pauses.recent_lag(),
            survey.slow_clients(),
            survey.instances(),
            survey.channels(),
            self._events.snapshot(),
        )


class _Survey:
    """One survey. Connections, instances and channels may come and go while it runs."""

    def __init__(self, name: str, hub: Hub, server: Server) -> None:
        self._name = name
        self._hub = hub
        self._budget = server.context.buffer_budget
        self._slow: _Largest[Connection] = _Largest()
        self._busy: _Largest[Instance] = _Largest()
        self._channels: _Largest[tuple[Instance, str]] = _Largest()

    def run(self) -> Iterator[None]:
        """Survey; yields now and then."""
        for number, holder in enumerate(list(self._budget.accounts)):
            if isinstance(holder, Connection) and (size := holder.write_buffer.size):
                self._slow.add(size, holder)
            if number % SLICE_STEP == 0:
                yield
        for number, instance in enumerate(list(self._hub.instances.values())):
            self._busy.add(instance.subscribers, instance)
            yield from self._survey_channels(instance)
            if number % SLICE_STEP == 0:
                yield

    def _survey_channels(self, instance: Instance) -> Iterator[None]:
        index = instance.index
        for name in index.names_of_single(MAX_CANDIDATES):
            self._channels.add(1, (instance, name))
        for number, name in enumerate(index.names_of_shared(), 1):
            self._channels.add(index.count(name), (instance, name))
            if number % SLICE_STEP == 0:
                yield

    def slow_clients(self) -> list[SlowClient]:
        """Return the clients for which most bytes wait."""
        return [each for connection in self._slow.items() if (each := self._describe(connection)) is not None]

    def _describe(self, connection: Connection) -> SlowClient | None:
        session, size = session_of(connection), connection.write_buffer.size
        if session is None or session.subscriber is None or not size:
            return None
        number, address, transport, user = client_of(connection, session.transport, session.grant)
        return SlowClient(
            self._name, number, address, user, transport, size, session.subscriber.instance.name
        )

    def instances(self) -> list[InstanceSize]:
        """Return the instances with most connections."""
        return [
            InstanceSize(each.name, each.subscribers, len(each.index), len(each.history))
            for each in self._busy.items()
        ]

    def channels(self) -> list[ChannelSize]:
        """Return the channels with most subscribers."""
        sizes = [
            ChannelSize(instance.name, name, instance.index.count(name))
            for instance, name in self._channels.items()
        ]
        return [each for each in sizes if each.subscribers]
