"""The ports of a process: listeners, the connections that came in, and how they are sent away."""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from tornado.ioloop import PeriodicCallback

from aphlict.config.settings import ServerSettings, Settings
from aphlict.net.arrival import Arrival
from aphlict.net.connection import Application, Connection, Context
from aphlict.net.deadlines import TICK, Deadlines
from aphlict.net.listener import Listener
from aphlict.net.poller import Poller
from aphlict.servers.http import HandOver
from aphlict.tls.context import server_context
from aphlict.wire.forwarded import Proxies
from aphlict.wire.frames import GOING_AWAY

log = logging.getLogger(__name__)

DRAIN_STEP = 0.05  # seconds between two groups of browsers that are sent away
LAST_WORDS = 1.0  # seconds that browsers have to take their close frame


class Role(NamedTuple):
    """What the servers of one type are made of."""

    connection: type[Connection]
    application: Application
    handed_over: HandOver  # what the application gives to Tornado


class Port(NamedTuple):
    """One server: its settings, and its sockets, which are bound and listening."""

    server: ServerSettings
    sockets: Sequence[socket.socket]


class Frontend:
    """Serves some ports. `contexts[i]` is the TLS of `ports[i]`, or None.

    `start`, then `drain` (in good order) or `abort` (at once); each once, in a running loop.
    """

    def __init__(
        self,
        settings: Settings,
        ports: Sequence[Port],
        contexts: Sequence[ssl.SSLContext | None],
        roles: Mapping[str, Role],
    ) -> None:
        self.settings = settings
        self._ports = ports
        self._contexts = list(contexts)
        self._roles = roles
        self._poller = Poller()
        self._deadlines = Deadlines(time.monotonic())
        self._servers = [port.server for port in ports]
        self._shared = [self._context(server) for server in self._servers]
        self._listeners: list[Listener] = []
        self._undo = ExitStack()

    def _context(self, server: ServerSettings) -> Context:
        context = Context(self._roles[server.type].application, self.settings, self._poller, self._deadlines)
        context.proxies = Proxies(server.proxy_trusted)
        return context

    def start(self) -> None:
        """Serve: every listener accepts when this returns."""
        self._poller.start()
        self._undo.callback(self._poller.close)
        self.every(TICK, lambda: self._deadlines.sweep(time.monotonic()))
        for position, port in enumerate(self._ports):
            for sock in port.sockets:
                listener = Listener(sock, self._poller, self._acceptor(position))
                listener.start()
                self._listeners.append(listener)

    @property
    def is_whole(self) -> bool:
        """Whether no listener has been lost."""
        return not any(listener.is_broken for listener in self._listeners)

    def every(self, seconds: float, work: Callable[[], None]) -> None:
        """Do some work again and again until the end."""
        timer = PeriodicCallback(work, seconds * 1000)
        timer.start()
        self._undo.callback(timer.stop)

    def _acceptor(self, position: int) -> Callable[[socket.socket, str], None]:
        connection = self._roles[self._servers[position].type].connection

        def on_accept(sock: socket.socket, address: str) -> None:
            if self._servers[position].proxy_protocol:
                arrival = Arrival(sock, address, self._poller, on_known, on_known)
                arrival.expect_within(self.settings.limits_handshake, self._deadlines)
            else:
                on_known(sock, address)

        def on_known(sock: socket.socket, address: str) -> None:
            tls = self._contexts[position]
            if tls is not None:
                sock = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            connection(sock, address, self._shared[position])

        return on_accept

    def reload(self, settings: Settings) -> None:
        """Use new limits and certificates for what comes from now on. Raises CertificateError: all stays as it was.

        Ports need a restart.
        """
        if [_port(each) for each in settings.servers] == [_port(each) for each in self.settings.servers]:
            by_port = {_port(each): each for each in settings.servers}
            servers = [by_port[_port(port.server)] for port in self._ports]
            self._contexts[:] = [server_context(each) if each.tls else None for each in servers]
            self._servers[:] = servers
            for shared, server in zip(self._shared, servers, strict=True):
                shared.proxies = Proxies(server.proxy_trusted)
        else:
            log.warning("the list of servers has changed: that takes effect at the next restart")
        self.settings = settings
        for shared in self._shared:
            shared.limits = settings

    async def drain(self) -> None:
        """Accept no more, and close all connections, spread evenly over `drain.time`, so that the browsers do not
        come back all at once."""
        self._stop_listening()
        connections = self._connections()
        steps = max(1, round(self.settings.drain_time / DRAIN_STEP))
        for step in range(steps):
            for connection in connections[step::steps]:
                connection.close(GOING_AWAY, "the server stops")
            if not self._connections():
                break
            await asyncio.sleep(DRAIN_STEP)
        for _ in range(round(LAST_WORDS / DRAIN_STEP)):
            if self._connections():
                await asyncio.sleep(DRAIN_STEP)

    async def close(self) -> None:
        """End all that is left; to be called after `drain`."""
        for role in self._roles.values():
            await role.handed_over.close()
        self._undo.close()

    def abort(self) -> None:
        """Stop at once: what is open is closed."""
        self._stop_listening()
        for connection in self._connections():
            connection.close(GOING_AWAY, "the server stops")
            connection.abort("the server stops at once")
        self._undo.close()

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.close()
        for arrival in self._poller.handlers():
            if isinstance(arrival, Arrival):
                arrival.abort()

    def _connections(self) -> list[Connection]:
        return [handler for handler in self._poller.handlers() if isinstance(handler, Connection)]


def _port(server: ServerSettings) -> tuple[str, int, str]:
    return server.address, server.port, server.type
