"""A node of several processes: the hub process and the edge processes, each as a `Node` would be."""

import asyncio
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from aphlict.cluster.relay import Relay
from aphlict.config.files import Read
from aphlict.config.settings import Settings
from aphlict.core.hub import Hub, Receipt
from aphlict.core.message import Message
from aphlict.core.stats import Subscribed
from aphlict.node import FLUSH_TIMEOUT, admin_role, client_role, describe, keep_tidy
from aphlict.protocol.websocket import TRY_AGAIN_LATER
from aphlict.server import limits as capacity
from aphlict.server.auth import Credentials
from aphlict.server.pages import NodeState
from aphlict.server.server import Port, Server
from aphlict.workers.edge_side import HubConnector
from aphlict.workers.hub_side import PATIENCE, EdgePool, total
from aphlict.workers.ipc import StatsReply

log = logging.getLogger(__name__)

CHECK = 0.25  # seconds between two looks for edges that do not confirm
JOIN_TIMEOUT = 10.0  # seconds that a new edge waits for the hub before it serves without
HUB_TIMEOUT = 5.0  # seconds without a hub after which an edge tells balancers to send nobody


class Nowhere:
    """The transport of an edge: the hub has passed the message on."""

    def forward(self, _message: Message, /) -> None:
        """Do nothing."""


class HubNode:
    """The process that has the admin ports, the history that counts, and the peers.

    `edges` is a listening Unix socket, where edges join. `fingerprint` is the node's, and outlives this process,
    and `started` (monotonic seconds) is when the node was.
    `ports` and `credentials` as of a Server; `read` as of a Node.
    """

    def __init__(
        self,
        settings: Settings,
        ports: Sequence[Port],
        credentials: Sequence[Credentials],
        edges: socket.socket,
        fingerprint: str,
        started: float,
        read: Read,
    ) -> None:
        self.settings = settings
        self.state = NodeState.STARTING
        self._started = started
        self._ports = ports
        self._edges = edges
        self._relay = Relay(settings.peers, fingerprint, read=read)
        self.hub = Hub(fingerprint, self._relay, settings.limits, lambda: None, time.monotonic())
        self._distribution = EdgePool(self.hub, settings.processes)
        roles = {"admin": admin_role(self, fingerprint, lambda: self.settings)}
        self._frontend = Server(settings, ports, credentials, roles, self.hub.hits)

    async def start(self) -> None:
        """Serve."""
        self._relay.start()
        await self._distribution.start(self._edges)
        await self._distribution.until_whole(PATIENCE)
        self._frontend.start()
        keep_tidy(self.hub, self._frontend)
        self._frontend.every(CHECK, lambda: self._distribution.sweep(time.monotonic()))
        self.state = NodeState.RUNNING
        log.info(
            "hub %s serves %s",
            self.hub.fingerprint,
            ", ".join(describe(port.settings) for port in self._ports),
        )

    def publish(self, messages: list[Message], done: Callable[[list[Receipt]], None], /) -> None:
        """Publish these in turn; the answer comes when every edge has them. Raises Overloaded.

        `done` gets fewer receipts than there are messages where the others were not taken: too much is waiting.
        """
        self.hub.check_load(self._distribution.load)
        self._publish(messages, [], done)

    def _publish(
        self, messages: list[Message], receipts: list[Receipt], done: Callable[[list[Receipt]], None]
    ) -> None:
        """Publish those that have no receipt yet: as many as the edges have room for, and then the next ones."""
        now = time.monotonic()
        begin = len(receipts)
        part = messages[begin : begin + self._distribution.room(now)]

        def on_published(more: list[Receipt]) -> None:
            receipts.extend(more)
            if len(receipts) == len(messages) or self._distribution.load > 1:
                done(receipts)
            else:
                asyncio.get_running_loop().call_soon(self._publish, messages, receipts, done)

        self._distribution.publish(part, now, on_published, waits_for_late=len(messages) == 1)

    def status(self, instance: str, done: Callable[[dict[str, Any]], None], /) -> None:
        """Tell how the whole node and this instance do."""

        def on_told(told: list[StatsReply]) -> None:
            is_whole = told or self.state is not NodeState.RUNNING
            done(
                {
                    **self.hub.status(instance, time.monotonic(), self._figures(told)),
                    "uptime": round((time.monotonic() - self._started) * 1000),
                    "pid": os.getpid(),
                    "state": (self.state if is_whole else NodeState.ERROR).value,
                    **capacity.status(self.settings),
                    "peers": self._relay.status(),
                    "workers": [{"pid": each.pid, "connections": each.figures.connections} for each in told],
                }
            )

        self._distribution.ask(instance, on_told)

    def _figures(self, told: Sequence[StatsReply]) -> Subscribed:
        """Those of the edges, and the limits that were hit here: publishers come to this process."""
        return total(told) + Subscribed(limits=dict(self.hub.hits.counts))

    def hear(self, fingerprint: str, /) -> None:
        """Another node is there."""
        self._relay.hear(fingerprint)

    def prepare_reload(self, settings: Settings, read: Read) -> Callable[[], None]:
        """As of a Node."""
        switch_frontend = self._frontend.prepare_reload(settings, read)

        def switch() -> None:
            switch_frontend()
            self.settings = settings
            self.hub.reload(settings.limits)
            self._relay.reload(settings.peers, read)

        return switch

    async def drain(self) -> None:
        """Stop in good order: publishers first, then what is queued for peers."""
        self.state = NodeState.STOPPING
        await asyncio.sleep(self.settings.drain_delay)
        await self._frontend.drain()
        self._distribution.close()
        unsent = await self._relay.close(FLUSH_TIMEOUT)
        if unsent:
            log.warning("%d messages to peers could not be delivered before the stop", unsent)
        self._frontend.close()

    def abort(self) -> None:
        """Stop at once."""
        self._distribution.close()
        self._frontend.abort()


class EdgeNode:
    """A process that holds browsers. `address` is where the hub lets edges join."""

    def __init__(
        self,
        settings: Settings,
        ports: Sequence[Port],
        credentials: Sequence[Credentials],
        address: str,
        fingerprint: str,
    ) -> None:
        self.settings = settings
        self._stopping = False
        self.hub = Hub(fingerprint, Nowhere(), settings.limits, self._wake, math.inf)
        self._link = HubConnector(self.hub, address, self._on_gap)
        roles = {"client": client_role(self.hub, lambda: self.state)}
        self._frontend = Server(settings, ports, credentials, roles, self.hub.hits)

    @property
    def state(self) -> NodeState:
        """What balancers are told."""
        if self._stopping:
            return NodeState.STOPPING
        is_alone = time.monotonic() > self.hub.in_sync_until + HUB_TIMEOUT
        if is_alone or not self._frontend.is_healthy:
            return NodeState.ERROR
        return NodeState.RUNNING

    async def start(self) -> None:
        """Serve, once the history is here."""
        self._link.start()
        try:
            await asyncio.wait_for(self._link.up_to_date.wait(), JOIN_TIMEOUT)
        except asyncio.TimeoutError:
            log.error("the hub does not answer: browsers are served without history for now")
        self._frontend.start()
        keep_tidy(self.hub, self._frontend)

    def _on_gap(self) -> None:
        """Have all browsers connect again: they learn then that they may have missed messages."""
        if self.hub.connections:
            log.warning(
                "messages did not come to this edge in time: %d browsers resume", self.hub.connections
            )
        self._frontend.disconnect(TRY_AGAIN_LATER, "messages were missed")

    def _wake(self) -> None:
        asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        if self.hub.work():
            self._wake()

    def prepare_reload(self, settings: Settings, read: Read) -> Callable[[], None]:
        """As of a Node."""
        switch_frontend = self._frontend.prepare_reload(settings, read)

        def switch() -> None:
            switch_frontend()
            self.settings = settings
            self.hub.reload(settings.limits)

        return switch

    async def drain(self) -> None:
        """Stop in good order: browsers are sent away bit by bit."""
        self._stopping = True
        await asyncio.sleep(self.settings.drain_delay)
        await self._frontend.drain()
        self._link.leave()
        self._frontend.close()

    def abort(self) -> None:
        """Stop at once."""
        self._link.close()
        self._frontend.abort()
