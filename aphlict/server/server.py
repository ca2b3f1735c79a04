"""All ports of a process: listeners, connections, reload and shutdown."""

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from tornado.ioloop import PeriodicCallback

from aphlict.config.files import Read
from aphlict.config.settings import ServerSettings, Settings
from aphlict.core.metrics import Cause, Samples, single
from aphlict.core.stats import LimitCounters
from aphlict.protocol.websocket import GOING_AWAY
from aphlict.server.access import local_names
from aphlict.server.auth import Credentials, load_credentials
from aphlict.server.connection import Connection
from aphlict.server.context import ServerContext
from aphlict.server.http_connection import Handler
from aphlict.server.listener import Acceptor, AdmissionLimits, Listener, PendingProxyConnection
from aphlict.server.measurements import PauseMonitor, ProcessMonitor
from aphlict.server.poller import MAX_TURN_SECONDS
from aphlict.server.timer_wheel import TICK

DRAIN_STEP = 0.05  # seconds between two groups of connections that are closed
LOG_INTERVAL = 60.0  # seconds between two summaries of the limits that were reached
CLOSE_GRACE = 1.0  # seconds after `drain.time` for the last clients to receive their close frame


class Port(NamedTuple):
    """The settings of one port, and its sockets, which are bound and listening."""

    settings: ServerSettings
    sockets: Sequence[socket.socket]


class Server:
    """Serves ports. `credentials[i]` belong to `ports[i]`, `handlers` to the types of ports.

    Call `start`, then either `drain` and `close` (graceful) or `abort` (immediate), each once and in a running loop.
    """

    def __init__(
        self,
        settings: Settings,
        ports: Sequence[Port],
        credentials: Sequence[Credentials],
        handlers: Mapping[str, Handler],
        limit_counters: LimitCounters,
    ) -> None:
        self.settings = settings
        self.context = ServerContext(settings.limits, limit_counters, time.monotonic())
        self.admission = {server_type: AdmissionLimits(server_type, settings) for server_type in handlers}
        self._ports = ports
        self._handlers = handlers
        self._acceptors = [self._make_acceptor(port.settings) for port in ports]
        for acceptor, each in zip(self._acceptors, credentials, strict=True):
            acceptor.set_credentials(each)
        self._listeners: list[Listener] = []
        self.pauses = PauseMonitor()
        self.process = ProcessMonitor(len(self.context.poller))
        self._next_sweep: asyncio.Handle | None = None  # of a sweep that takes several turns of the loop
        self._cleanup = ExitStack()

    def _make_acceptor(self, server: ServerSettings) -> Acceptor:
        handler, limits = self._handlers[server.type], self.admission[server.type]
        return Acceptor(server, local_names(self.settings), handler, limits, self.context)

    def start(self) -> None:
        """Start all listeners: they accept when this returns."""
        self.context.poller.start()
        self._cleanup.callback(self.context.poller.close)
        self.pauses.start()
        self._cleanup.callback(self.pauses.stop)
        self._cleanup.callback(self._cancel_sweep)
        self.every(TICK, self.tick)
        self.every(LOG_INTERVAL, self.context.limit_counters.sweep)
        for port, acceptor in zip(self._ports, self._acceptors, strict=True):
            rate = self.admission[port.settings.type].rate
            for sock in port.sockets:
                listener = Listener(
                    sock, self.context.poller, acceptor.on_accept, rate, self.context.limit_counters
                )
                listener.start()
                self._listeners.append(listener)

    @property
    def is_healthy(self) -> bool:
        """Whether all listeners can accept."""
        return not any(listener.is_broken for listener in self._listeners)

    def connections(self) -> list[Connection]:
        """Return the open connections of all ports."""
        return [each for each in self.context.poller.handlers() if isinstance(each, Connection)]

    def samples(self) -> Samples:
        """Return the metrics of the ports and of this process."""
        context, publishers = self.context, self.admission.get("admin")
        certificates: dict[str, float] = {}
        for port, acceptor in zip(self._ports, self._acceptors, strict=True):
            if (expires := acceptor.certificate_expires) is not None:
                name = str(port.settings.port)
                certificates[name] = min(expires, certificates.get(name, expires))
        return {
            **context.counters.samples(),
            **self.pauses.samples(),
            **self.process.samples(len(context.poller)),
            **single(
                {
                    "aphlict_publisher_connections": publishers.connections.used if publishers else 0,
                    "aphlict_waiting_bytes": context.buffer_budget.used,
                    "aphlict_waiting_clients": len(context.buffer_budget.accounts),
                }
            ),
            "aphlict_certificate_expiry_timestamp_seconds": certificates,
        }

    def every(self, seconds: float, work: Callable[[], None]) -> None:
        """Call `work` periodically until the server is closed."""
        timer = PeriodicCallback(work, seconds * 1000)
        timer.start()
        self._cleanup.callback(timer.stop)

    def tick(self) -> None:
        """Handle the deadlines that have passed. Called every TICK seconds."""
        for limits in self.admission.values():
            limits.rate.refill(TICK)
        if self._next_sweep is None:
            self._sweep()

    def _sweep(self) -> None:
        """Handle deadlines for up to MAX_TURN_SECONDS seconds, and continue after other work of the loop."""
        self._next_sweep = None
        until = time.monotonic() + MAX_TURN_SECONDS
        while self.context.timers.sweep(now := time.monotonic()):
            if now > until:
                self._next_sweep = asyncio.get_running_loop().call_soon(self._sweep)
                return

    def _cancel_sweep(self) -> None:
        if self._next_sweep is not None:
            self._next_sweep.cancel()

    # Reload

    def prepare_reload(self, settings: Settings, read: Read) -> Callable[[], None]:
        """Load the certificates and keys of new settings for the same ports.

        Returns a function that applies the settings and cannot fail. Raises ConfigError, and changes nothing.
        """
        by_port = {_key(each): each for each in settings.servers}
        servers = [by_port[_key(port.settings)] for port in self._ports]
        credentials = [load_credentials(each, read) for each in servers]
        names = local_names(settings)

        def switch() -> None:
            is_stricter = False
            for acceptor, server, each in zip(self._acceptors, servers, credentials, strict=True):
                is_stricter |= acceptor.set_credentials(each)
                acceptor.set_settings(server, names)
            if is_stricter:
                self._abort_untrusted()
            self._set_limits(settings)

        return switch

    def _abort_untrusted(self) -> None:
        """Abort connections whose client certificate is not accepted, or not yet received, under the new `ssl.ca`."""
        for connection in self.connections():
            if not connection.has_accepted_certificate:
                self.context.limit_counters.add(
                    "ssl.ca", connection.address, "its authority was removed from the file"
                )
                connection.abort("its certificate is no longer accepted")

    def _set_limits(self, settings: Settings) -> None:
        self.settings = settings
        self.context.reload(settings.limits)
        for limits in self.admission.values():
            counted = [
                each.counted_address for each in self.connections() if each.port.limiter is limits.connections
            ]
            limits.reload(settings, [address for address in counted if address is not None])

    # Shutdown

    def disconnect(self, code: int, reason: str, cause: Cause) -> None:
        """Close all present connections, WebSockets with a close frame. New connections are still accepted."""
        for connection in self.connections():
            connection.close(code, reason, cause=cause)

    async def drain(self) -> None:
        """Stop accepting, and close all connections, spread evenly over `drain.time`: otherwise all clients would
        reconnect in the same second."""
        self._stop_accepting()
        connections = self.connections()
        steps = max(1, round(self.settings.drain_time / DRAIN_STEP))
        until = 0.0
        for step in range(steps):
            for connection in connections[step::steps]:
                # To close the connection of a slow client writes its send buffer again, or drops it.
                if time.monotonic() > until:
                    await asyncio.sleep(0)
                    until = time.monotonic() + MAX_TURN_SECONDS
                connection.close(GOING_AWAY, "server is shutting down", cause="shutdown")
            if not self.connections():
                break
            await asyncio.sleep(DRAIN_STEP)
        for _ in range(round(CLOSE_GRACE / DRAIN_STEP)):
            if self.connections():
                await asyncio.sleep(DRAIN_STEP)

    def close(self) -> None:
        """Release all resources, after `drain`."""
        self._cleanup.close()

    def abort(self) -> None:
        """Stop accepting and close all connections immediately."""
        self._stop_accepting()
        for connection in self.connections():
            connection.close(GOING_AWAY, "server is shutting down", cause="shutdown")
            connection.abort("server was stopped immediately")
        self._cleanup.close()

    def _stop_accepting(self) -> None:
        for listener in self._listeners:
            listener.close()
        for handler in self.context.poller.handlers():
            if isinstance(handler, PendingProxyConnection):
                handler.abort()


def _key(server: ServerSettings) -> tuple[str, int, str]:
    """Identify a port, whatever else its settings hold."""
    return server.address, server.port, server.type
