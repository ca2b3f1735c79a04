"""The ports of a process: listeners, the connections that came in, and how they are sent away."""

import asyncio
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from tornado.ioloop import PeriodicCallback

from aphlict.config.files import Read
from aphlict.config.settings import ServerSettings, Settings
from aphlict.core.stats import LimitCounters
from aphlict.protocol.websocket import GOING_AWAY
from aphlict.server.acceptor import Acceptor, AdmissionLimits
from aphlict.server.admin_access import own_names
from aphlict.server.connection import Application, Connection
from aphlict.server.context import Surroundings
from aphlict.server.credentials import Credentials, load
from aphlict.server.listener import Listener
from aphlict.server.pending import PendingProxyConnection
from aphlict.server.poller import SPELL
from aphlict.server.port import is_proven
from aphlict.server.timer_wheel import TICK

DRAIN_STEP = 0.05  # seconds between two groups of browsers that are sent away
TELL_HITS = 60.0  # seconds between two sums of how often limits were hit
LAST_WORDS = 1.0  # seconds that browsers have to take their close frame


class PortType(NamedTuple):
    """What the servers of one type are made of."""

    connection: type[Connection]
    application: Application


class Port(NamedTuple):
    """One server: its settings, and its sockets, which are bound and listening."""

    server: ServerSettings
    sockets: Sequence[socket.socket]


class Server:
    """Serves some ports. `credentials[i]` are those of `ports[i]`.

    `start`, then `drain` (in good order) or `abort` (at once); each once, in a running loop.
    """

    def __init__(
        self,
        settings: Settings,
        ports: Sequence[Port],
        credentials: Sequence[Credentials],
        roles: Mapping[str, PortType],
        hits: LimitCounters,
    ) -> None:
        self.settings = settings
        self._ports = ports
        self._roles = roles
        self._surroundings = Surroundings(settings.limits, hits, time.monotonic())
        self._poller, self._deadlines = self._surroundings.poller, self._surroundings.deadlines
        self._gates = {kind: AdmissionLimits(kind, settings) for kind in roles}
        self._entrances = [self._entrance(port.server) for port in ports]
        for entrance, each in zip(self._entrances, credentials, strict=True):
            entrance.equip(each)
        self._listeners: list[Listener] = []
        self._sweeping: asyncio.Handle | None = None  # the next turn of a sweep that has not come to its end
        self._undo = ExitStack()

    def _entrance(self, server: ServerSettings) -> Acceptor:
        role = self._roles[server.type]
        gate, names = self._gates[server.type], own_names(self.settings)
        return Acceptor(server, names, role.connection, role.application, gate, self._surroundings)

    def start(self) -> None:
        """Serve: every listener accepts when this returns."""
        self._poller.start()
        self._undo.callback(self._poller.close)
        self._undo.callback(self._stop_sweeping)
        self.every(TICK, self._tick)
        self.every(TELL_HITS, self._surroundings.hits.sweep)
        for port, entrance in zip(self._ports, self._entrances, strict=True):
            pace = self._gates[port.server.type].pace
            for sock in port.sockets:
                listener = Listener(sock, self._poller, entrance.on_accept, pace, self._surroundings.hits)
                listener.start()
                self._listeners.append(listener)

    @property
    def is_whole(self) -> bool:
        """Whether no listener has been lost."""
        return not any(listener.is_broken for listener in self._listeners)

    def _tick(self) -> None:
        for gate in self._gates.values():
            gate.pace.refill(TICK)
        if self._sweeping is None:
            self._sweep()

    def _sweep(self) -> None:
        """Look at what is due, as often as it takes; other work of the loop has its turns between."""
        self._sweeping = None
        until = time.monotonic() + SPELL
        while self._deadlines.sweep(now := time.monotonic()):
            if now > until:
                self._sweeping = asyncio.get_running_loop().call_soon(self._sweep)
                return

    def _stop_sweeping(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()

    def every(self, seconds: float, work: Callable[[], None]) -> None:
        """Do some work again and again until the end."""
        timer = PeriodicCallback(work, seconds * 1000)
        timer.start()
        self._undo.callback(timer.stop)

    def prepare_reload(self, settings: Settings, read: Read) -> Callable[[], None]:
        """Load the certificates and keys of new settings for the same ports; what is returned puts them in force for
        what comes from then on, and cannot fail. Raises ConfigError: all stays as it was.
        """
        by_port = {_port(each): each for each in settings.servers}
        servers = [by_port[_port(port.server)] for port in self._ports]
        credentials = [load(each, read) for each in servers]
        names = own_names(settings)

        def switch() -> None:
            is_stricter = False
            for entrance, server, own in zip(self._entrances, servers, credentials, strict=True):
                is_stricter |= entrance.equip(own)
                entrance.use(server, names)
            if is_stricter:
                self._end_unproven()
            self._limit(settings)

        return switch

    def _end_unproven(self) -> None:
        """End the connections whose certificate is no longer accepted, and those that have not shown one yet."""
        for connection in self._connections():
            if not is_proven(connection):
                self._surroundings.hits.add(
                    "ssl.ca", connection.address, "its authority is no longer in the file"
                )
                connection.abort("its certificate is not accepted any more")

    def _limit(self, settings: Settings) -> None:
        """Use other limits from now on."""
        self.settings = settings
        self._surroundings.reload(settings.limits)
        for entrance in self._entrances:
            entrance.limit(settings.limits)
        for kind, gate in self._gates.items():
            gate.reload(settings, self._addresses(kind))

    def _addresses(self, kind: str) -> list[str]:
        """Where those come from who are in by ports of one type."""
        door = self._gates[kind].door
        inside = [each.counted for each in self._connections() if each.context.door is door]
        return [address for address in inside if address is not None]

    def disconnect(self, code: int, reason: str) -> None:
        """Close all connections now, with a close frame where they are WebSockets; others may come."""
        for connection in self._connections():
            connection.close(code, reason)

    async def drain(self) -> None:
        """Accept no more, and close all connections, spread evenly over `drain.time`, so that the browsers do not
        come back all at once."""
        self._stop_listening()
        connections = self._connections()
        steps = max(1, round(self.settings.drain_time / DRAIN_STEP))
        until = 0.0
        for step in range(steps):
            for connection in connections[step::steps]:
                if (
                    time.monotonic() > until
                ):  # what waits for those that are slow is sent once more, or thrown away
                    await asyncio.sleep(0)
                    until = time.monotonic() + SPELL
                connection.close(GOING_AWAY, "the server stops")
            if not self._connections():
                break
            await asyncio.sleep(DRAIN_STEP)
        for _ in range(round(LAST_WORDS / DRAIN_STEP)):
            if self._connections():
                await asyncio.sleep(DRAIN_STEP)

    def close(self) -> None:
        """End all that is left; to be called after `drain`."""
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
            if isinstance(arrival, PendingProxyConnection):
                arrival.abort()

    def _connections(self) -> list[Connection]:
        return [handler for handler in self._poller.handlers() if isinstance(handler, Connection)]


def _port(server: ServerSettings) -> tuple[str, int, str]:
    return server.address, server.port, server.type
