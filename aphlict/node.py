"""One whole server in one process: ports, hub and cluster, and their start and stop."""

import asyncio
import logging
import os
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from tornado.ioloop import PeriodicCallback

from aphlict.cluster.relay import Relay
from aphlict.config.settings import ServerSettings, Settings
from aphlict.hub import Hub
from aphlict.message import random_name
from aphlict.net.connection import Application, Connection, Context
from aphlict.net.deadlines import TICK, Deadlines
from aphlict.net.listener import Listener
from aphlict.net.poller import Poller
from aphlict.net.requests import REQUEST_TIMEOUT, RequestConnection
from aphlict.servers.admin import Admin, Publishers
from aphlict.servers.browsers import Browsers
from aphlict.servers.http import HandOver
from aphlict.servers.pages import NodeState, Pages
from aphlict.tls.context import server_context
from aphlict.wire.frames import GOING_AWAY

log = logging.getLogger(__name__)

FINGERPRINT_SIZE = 16
SWEEP = 5.0  # seconds between the hub's sweeps
DRAIN_STEP = 0.05  # seconds between two groups of browsers that are sent away
LAST_WORDS = 1.0  # seconds that browsers have to take their close frame
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
        self._sockets = sockets
        self._contexts = list(contexts)
        self._started = time.monotonic()
        self._relay = Relay(settings.cluster, self.fingerprint)
        self.hub = Hub(self.fingerprint, self._relay, settings, self._wake)
        self._poller = Poller()
        self._deadlines = Deadlines(self._started)
        admin = Admin(self.hub, time.monotonic, self._more_status)
        pages = Pages(lambda: self.state)
        self._handed_over = {
            "client": HandOver(pages, settings.limits_head, REQUEST_TIMEOUT),
            "admin": HandOver(admin, settings.limits_head, REQUEST_TIMEOUT),
        }
        self._serving: dict[str, tuple[type[Connection], Context]] = {
            "client": (
                Connection,
                self._share(Browsers(self.hub, self._handed_over["client"], time.monotonic)),
            ),
            "admin": (RequestConnection, self._share(Publishers(admin, self._handed_over["admin"]))),
        }
        self._listeners: list[Listener] = []
        self._undo = ExitStack()

    def _share(self, application: Application) -> Context:
        return Context(application, self.settings, self._poller, self._deadlines)

    # Starting

    async def start(self) -> None:
        """Serve: every listener accepts when this returns."""
        self._poller.start()
        self._undo.callback(self._poller.close)
        self._every(TICK, lambda: self._deadlines.sweep(time.monotonic()))
        self._every(SWEEP, lambda: self.hub.sweep(time.monotonic()))
        self._relay.start()
        for position, server in enumerate(self.settings.servers):
            self._serve(position, *self._serving[server.type])
        self.state = NodeState.RUNNING
        log.info("node %s serves %s", self.fingerprint, ", ".join(map(_describe, self.settings.servers)))

    def _every(self, seconds: float, work: Any) -> None:
        timer = PeriodicCallback(work, seconds * 1000)
        timer.start()
        self._undo.callback(timer.stop)

    def _serve(self, position: int, kind: type[Connection], shared: Context) -> None:
        def on_accept(sock: socket.socket, address: str) -> None:
            tls = self._contexts[position]
            if tls is not None:
                sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            kind(sock, address, shared)

        for sock in self._sockets[position]:
            listener = Listener(sock, self._poller, on_accept)
            listener.start()
            self._listeners.append(listener)

    # Running

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
        contexts = [server_context(server) if server.tls else None for server in settings.servers]
        if [_port(server) for server in settings.servers] == [
            _port(server) for server in self.settings.servers
        ]:
            self._contexts[:] = contexts
        else:
            log.warning("the list of servers has changed: that takes effect at the next restart")
        self.settings = settings
        for _, shared in self._serving.values():
            shared.limits = settings
        self.hub.reload(settings)

    # Stopping

    async def drain(self) -> None:
        """Stop in good order: no new browsers, the others are sent away bit by bit, peers get what is queued."""
        self.state = NodeState.STOPPING
        log.info(
            "stopping: %d browsers are sent away within %g s", self.hub.connections, self.settings.drain_time
        )
        await asyncio.sleep(self.settings.drain_delay)
        self._stop_listening()
        await self._send_away()
        unsent = await self._relay.close(FLUSH_TIMEOUT)
        if unsent:
            log.warning("%d messages to peers could not be delivered before the stop", unsent)
        for handed_over in self._handed_over.values():
            await handed_over.close()
        self._undo.close()
        log.info("stopped")

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()

    async def _send_away(self) -> None:
        """Close all browsers, spread evenly over `drain.time`, so that they do not come back all at once."""
        connections = self._connections()
        steps = max(1, round(self.settings.drain_time / DRAIN_STEP))
        for step in range(steps):
            for connection in connections[step::steps]:
                connection.close(GOING_AWAY, "the server stops")
            if not self._connections():
                return
            await asyncio.sleep(DRAIN_STEP)
        for _ in range(round(LAST_WORDS / DRAIN_STEP)):
            if self._connections():
                await asyncio.sleep(DRAIN_STEP)

    def _connections(self) -> list[Connection]:
        return [handler for handler in self._poller.handlers() if isinstance(handler, Connection)]

    def abort(self) -> None:
        """Stop at once: what is open is closed, what is queued is lost."""
        self._stop_listening()
        for connection in self._connections():
            connection.close(GOING_AWAY, "the server stops")
            connection.abort("the server stops at once")
        self._undo.close()


def _port(server: ServerSettings) -> tuple[str, int, str]:
    return server.address, server.port, server.type


def _describe(server: ServerSettings) -> str:
    return f"{server.type} {server.address}:{server.port}{' with TLS' if server.tls else ''}"
