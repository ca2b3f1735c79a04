"""One whole server in one process: ports, hub and cluster, and their start and stop."""

import asyncio
import logging
import os
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any

from aphlict.cluster.relay import Relay
from aphlict.config.settings import ServerSettings, Settings
from aphlict.hub import Hub
from aphlict.message import random_name
from aphlict.net.connection import Connection
from aphlict.net.requests import REQUEST_TIMEOUT, RequestConnection
from aphlict.servers import script
from aphlict.servers.admin import Admin, Publishers
from aphlict.servers.browsers import Browsers
from aphlict.servers.frontend import Frontend, Port, Role
from aphlict.servers.http import HandOver
from aphlict.servers.pages import NodeState, Pages

log = logging.getLogger(__name__)

FINGERPRINT_SIZE = 16
SWEEP = 5.0  # seconds between the hub's sweeps
FLUSH_TIMEOUT = 2.0  # seconds that peers have to take what is queued for them when the node stops


class Node:
    """A server. `sockets[i]` are bound and listening for `settings.servers[i]`, `contexts[i]` its TLS or None.

    `start`, then `drain` (in good order) or `abort` (at once); each once, in a running loop.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: Sequence[Sequence[socket.socket]],
        contexts: Sequence[ssl.SSLContext | None],
    ) -> None:
        self.settings = settings
        self.state = NodeState.STARTING
        self.fingerprint = random_name(FINGERPRINT_SIZE)
        self._started = time.monotonic()
        self._relay = Relay(settings.cluster, self.fingerprint)
        self.hub = Hub(self.fingerprint, self._relay, settings, self._wake)
        ports = [Port(server, each) for server, each in zip(settings.servers, sockets, strict=True)]
        self._frontend = Frontend(
            settings, ports, contexts, {"client": self._client_role(), "admin": self._admin_role()}
        )

    def _client_role(self) -> Role:
        pages = HandOver(Pages(lambda: self.state, script.load()), self.settings.limits_head, REQUEST_TIMEOUT)
        return Role(Connection, Browsers(self.hub, pages, time.monotonic), pages)

    def _admin_role(self) -> Role:
        admin = Admin(self.hub, time.monotonic, self._more_status, self._relay.hear)
        in_chunks = HandOver(admin, self.settings.limits_head, REQUEST_TIMEOUT)
        return Role(RequestConnection, Publishers(admin, in_chunks), in_chunks)

    async def start(self) -> None:
        """Serve: every listener accepts when this returns."""
        self._relay.start()
        self._frontend.start()
        self._frontend.every(SWEEP, lambda: self.hub.sweep(time.monotonic()))
        self.state = NodeState.RUNNING
        log.info("node %s serves %s", self.fingerprint, ", ".join(map(_describe, self.settings.servers)))

    def _wake(self) -> None:
        asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        if self.hub.work():
            self._wake()

    def _more_status(self) -> dict[str, Any]:
        return {
            "uptime": round((time.monotonic() - self._started) * 1000),
            "pid": os.getpid(),
            "fingerprint": self.fingerprint,
            "state": self.state.value,
            "connections": self.hub.connections,
            "duplicates": self.hub.counters.duplicates,
            "peers": self._relay.status(),
        }

    def reload(self, settings: Settings) -> None:
        """Use new limits and certificates for what comes from now on. Raises CertificateError: all stays as it was.

        Ports, peers and users need a restart.
        """
        self._frontend.reload(settings)
        self.settings = settings
        self.hub.reload(settings)

    async def drain(self) -> None:
        """Stop in good order: no new browsers, the others are sent away bit by bit, peers get what is queued."""
        self.state = NodeState.STOPPING
        log.info(
            "stopping: %d browsers are sent away within %g s", self.hub.connections, self.settings.drain_time
        )
        await asyncio.sleep(self.settings.drain_delay)
        await self._frontend.drain()
        unsent = await self._relay.close(FLUSH_TIMEOUT)
        if unsent:
            log.warning("%d messages to peers could not be delivered before the stop", unsent)
        await self._frontend.close()
        log.info("stopped")

    def abort(self) -> None:
        """Stop at once: what is open is closed, what is queued is lost."""
        self._frontend.abort()


def _describe(server: ServerSettings) -> str:
    return f"{server.type} {server.address}:{server.port}{' with TLS' if server.tls else ''}"
