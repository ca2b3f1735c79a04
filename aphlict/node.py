"""One whole server in one process: ports, hub and cluster, and their start and stop."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from aphlict.cluster.relay import Relay
from aphlict.config.files import Read, read_file
from aphlict.config.settings import ServerSettings, Settings
from aphlict.core.hub import Hub, Receipt
from aphlict.core.message import Message, random_name
from aphlict.server import limits as capacity
from aphlict.server import pages as script
from aphlict.server.admin_port import Admin, NodeAPI, Publishers
from aphlict.server.auth import Credentials
from aphlict.server.client_port import Browsers
from aphlict.server.http_connection import RequestConnection
from aphlict.server.pages import NodeState, Pages
from aphlict.server.server import Port, PortType, Server
from aphlict.server.streaming import BrowserConnection

log = logging.getLogger(__name__)

FINGERPRINT_SIZE = 16
SWEEP = 5.0  # seconds between the hub's sweeps
TURN = 0.01  # seconds of publishing after which other work of the loop has its turn
FLUSH_TIMEOUT = 2.0  # seconds that peers have to take what is queued for them when the node stops


class Node:
    """A server. `sockets[i]` are bound and listening for `settings.servers[i]`, `credentials[i]` its own.
    The files of peers are read with `read`.

    `start`, then `drain` (in good order) or `abort` (at once); each once, in a running loop.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: Sequence[Sequence[socket.socket]],
        credentials: Sequence[Credentials],
        read: Read = read_file,
    ) -> None:
        self.settings = settings
        self._state = NodeState.STARTING
        self.fingerprint = random_name(FINGERPRINT_SIZE)
        self._started = time.monotonic()
        self._relay = Relay(settings.peers, self.fingerprint, read=read)
        self.hub = Hub(self.fingerprint, self._relay, settings.limits, self._wake, self._started)
        ports = [Port(server, each) for server, each in zip(settings.servers, sockets, strict=True)]
        roles = {
            "client": client_role(self.hub, lambda: self.state),
            "admin": admin_role(self, self.fingerprint, lambda: self.settings),
        }
        self._frontend = Server(settings, ports, credentials, roles, self.hub.hits)

    @property
    def state(self) -> NodeState:
        """What balancers are told."""
        if self._state is NodeState.RUNNING and not self._frontend.is_healthy:
            return NodeState.ERROR
        return self._state

    async def start(self) -> None:
        """Serve: every listener accepts when this returns."""
        self._relay.start()
        self._frontend.start()
        keep_tidy(self.hub, self._frontend)
        self._state = NodeState.RUNNING
        log.info("node %s serves %s", self.fingerprint, ", ".join(map(describe, self.settings.servers)))

    def _wake(self) -> None:
        asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        if self.hub.work():
            self._wake()

    def publish(self, messages: list[Message], done: Callable[[list[Receipt]], None], /) -> None:
        """Publish these in turn; a long list takes several turns of the loop. Raises Overloaded.

        `done` gets fewer receipts than there are messages where the others were not taken: too much is waiting.
        """
        self.hub.check_load()
        self._publish(messages, [], done)

    def _publish(
        self, messages: list[Message], receipts: list[Receipt], done: Callable[[list[Receipt]], None]
    ) -> None:
        """Publish those that have no receipt yet. It takes longer the more browsers listen to several channels."""
        begin = now = time.monotonic()
        for message in messages[len(receipts) :]:
            if now > begin + TURN:
                asyncio.get_running_loop().call_soon(self._publish, messages, receipts, done)
                return
            if receipts and self.hub.load > 1:
                break
            receipts.append(self.hub.publish(message, now))
            now = time.monotonic()
        done(receipts)

    def status(self, instance: str, done: Callable[[dict[str, Any]], None], /) -> None:
        """Tell how the node and this instance do."""
        done(
            {
                **self.hub.status(instance, time.monotonic()),
                "uptime": round((time.monotonic() - self._started) * 1000),
                "pid": os.getpid(),
                "state": self.state.value,
                **capacity.status(self.settings),
                "peers": self._relay.status(),
                "workers": [{"pid": os.getpid(), "connections": self.hub.connections}],
            }
        )

    def hear(self, fingerprint: str, /) -> None:
        """Another node is there."""
        self._relay.hear(fingerprint)

    def prepare_reload(self, settings: Settings, read: Read = read_file) -> Callable[[], None]:
        """Prepare new limits, certificates and keys; what is returned puts them in force and cannot fail.

        `settings` are for the same ports and peers. Raises ConfigError: all stays as it was.
        """
        switch_frontend = self._frontend.prepare_reload(settings, read)

        def switch() -> None:
            switch_frontend()
            self.settings = settings
            self.hub.reload(settings.limits)
            self._relay.reload(settings.peers, read)

        return switch

    async def drain(self) -> None:
        """Stop in good order: no new browsers, the others are sent away bit by bit, peers get what is queued."""
        self._state = NodeState.STOPPING
        log.info(
            "stopping: %d browsers are sent away within %g s", self.hub.connections, self.settings.drain_time
        )
        await asyncio.sleep(self.settings.drain_delay)
        await self._frontend.drain()
        unsent = await self._relay.close(FLUSH_TIMEOUT)
        if unsent:
            log.warning("%d messages to peers could not be delivered before the stop", unsent)
        self._frontend.close()
        log.info("stopped")

    def abort(self) -> None:
        """Stop at once: what is open is closed, what is queued is lost."""
        self._frontend.abort()


def keep_tidy(hub: Hub, frontend: Server) -> None:
    """Let a hub forget what is too old, again and again, and know what time it is: the clock may be set."""

    def sweep() -> None:
        hub.epoch = time.time() - time.monotonic()
        hub.sweep(time.monotonic())

    sweep()
    frontend.every(SWEEP, sweep)


def client_role(hub: Hub, state: Callable[[], NodeState]) -> PortType:
    """What client ports are made of."""
    return PortType(BrowserConnection, Browsers(hub, Pages(state, script.load()), time.monotonic))


def admin_role(desk: NodeAPI, fingerprint: str, settings: Callable[[], Settings]) -> PortType:
    """What admin ports are made of."""
    return PortType(RequestConnection, Publishers(Admin(desk, fingerprint, lambda: settings().limits)))


def describe(server: ServerSettings) -> str:
    return f"{server.type} {server.address}:{server.port}{' with TLS' if server.tls else ''}"
