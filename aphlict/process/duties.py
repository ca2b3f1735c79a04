"""What the worker processes of a server do: one that is everything, or a hub and its edges."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from aphlict.config.settings import Settings
from aphlict.message import random_name
from aphlict.node import FINGERPRINT_SIZE, Node
from aphlict.process.launch import Launch
from aphlict.servers.credentials import Credentials
from aphlict.servers.frontend import Port
from aphlict.workers.nodes import EdgeNode, HubNode


class Serving(Protocol):
    """What a worker process runs."""

    async def start(self) -> None:
        """Serve: every listener accepts when this returns."""

    async def drain(self) -> None:
        """Stop in good order."""

    def abort(self) -> None:
        """Stop at once."""

    def reload(self, settings: Settings) -> None:
        """Use new settings. Raises ConfigError: all stays as it was."""


class Duty(NamedTuple):
    """What one worker process does: its name in the log, and how to make it, once it has been forked."""

    name: str
    make: Callable[[], Serving]


def assign(launched: Launch) -> list[Duty]:
    """The worker processes that the configuration asks for."""
    count = launched.settings.processes
    if count == 1:
        return [Duty("worker", lambda: Node(launched.settings, launched.sockets[0], launched.credentials))]
    plan = _Plan(launched)
    return [Duty("hub", plan.make_hub), *(plan.edge(number) for number in range(count))]


class _Plan:
    """What hub and edges of one server share."""

    def __init__(self, launched: Launch) -> None:
        self._launch = launched
        self._fingerprint = random_name(FINGERPRINT_SIZE)
        # An abstract name (unix(7)): it needs no folder, and nothing is left of it after kill -9.
        self._address = f"\0aphlict-{os.getpid()}-{random_name(FINGERPRINT_SIZE)}"
        self._edges = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._edges.setblocking(False)
        self._edges.bind(self._address)
        self._edges.listen()
        launched.undo.callback(self._edges.close)

    def make_hub(self) -> Serving:
        ports, credentials = self._select("admin", self._launch.sockets[0])
        return HubNode(self._launch.settings, ports, credentials, self._edges.dup(), self._fingerprint)

    def edge(self, number: int) -> Duty:
        def make() -> Serving:
            ports, credentials = self._select("client", self._launch.sockets[number])
            return EdgeNode(self._launch.settings, ports, credentials, self._address, self._fingerprint)

        return Duty(f"edge {number + 1}", make)

    def _select(
        self, kind: str, sockets: Sequence[Sequence[socket.socket]]
    ) -> tuple[list[Port], list[Credentials]]:
        launched = self._launch
        chosen = [place for place, server in enumerate(launched.settings.servers) if server.type == kind]
        ports = [Port(launched.settings.servers[place], sockets[place]) for place in chosen]
        return ports, [launched.credentials[place] for place in chosen]
