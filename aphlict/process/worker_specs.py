"""What the worker processes of a server do: one that is everything, or a hub and its edges."""

import os
import socket
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from aphlict.config.files import Read
from aphlict.config.settings import Settings
from aphlict.core.message import random_name
from aphlict.node import FINGERPRINT_SIZE, Node
from aphlict.process.bootstrap import Launch
from aphlict.server.auth import Credentials
from aphlict.server.server import Port
from aphlict.workers.nodes import EdgeNode, HubNode


class Serving(Protocol):
    """What a worker process runs."""

    async def start(self) -> None:
        """Serve: every listener accepts when this returns."""

    async def drain(self) -> None:
        """Stop in good order."""

    def abort(self) -> None:
        """Stop at once."""

    def prepare_reload(self, settings: Settings, read: Read) -> Callable[[], None]:
        """Prepare new settings, reading files with `read`. What is returned puts them in force, and cannot fail.

        Raises ConfigError: all stays as it was.
        """


class WorkerSpec(NamedTuple):
    """What one worker process does: its name in the log, how to make it, once it has been forked, and on what."""

    name: str
    make: Callable[[], Serving]
    sockets: frozenset[socket.socket]  # those that it listens on


def assign(launched: Launch) -> list[WorkerSpec]:
    """The worker processes that the configuration asks for."""
    count = launched.settings.processes
    if count == 1:
        [copy] = launched.sockets
        sockets = frozenset(sock for each in copy for sock in each)

        def make() -> Serving:
            return Node(launched.settings, copy, launched.credentials, launched.files.recall)

        return [WorkerSpec("worker", make, sockets)]
    plan = _Plan(launched)
    return [plan.hub(), *(plan.edge(number) for number in range(count))]


class _Plan:
    """What hub and edges of one server share."""

    def __init__(self, launched: Launch) -> None:
        self._launch = launched
        self._fingerprint = random_name(FINGERPRINT_SIZE)
        self._started = time.monotonic()
        # An abstract name (unix(7)): it needs no folder, and nothing is left of it after kill -9.
        self._address = f"\0aphlict-{os.getpid()}-{random_name(FINGERPRINT_SIZE)}"
        self._edges = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._edges.setblocking(False)
        self._edges.bind(self._address)
        self._edges.listen()
        launched.undo.callback(self._edges.close)

    def hub(self) -> WorkerSpec:
        """Order messages, and talk to publishers."""

        def make() -> Serving:
            ports, credentials = self._select("admin", 0)
            edges = self._edges.dup()
            settings, recall = self._launch.settings, self._launch.files.recall
            return HubNode(settings, ports, credentials, edges, self._fingerprint, self._started, recall)

        return WorkerSpec("hub", make, self._sockets("admin", 0))

    def edge(self, number: int) -> WorkerSpec:
        """Hold browsers."""

        def make() -> Serving:
            ports, credentials = self._select("client", number)
            return EdgeNode(self._launch.settings, ports, credentials, self._address, self._fingerprint)

        return WorkerSpec(f"edge {number + 1}", make, self._sockets("client", number))

    def _select(self, kind: str, copy: int) -> tuple[list[Port], list[Credentials]]:
        """The ports and credentials as they are configured by then: a reload may have changed them."""
        launched, chosen = self._launch, self._places(kind)
        ports = [Port(launched.settings.servers[place], launched.sockets[copy][place]) for place in chosen]
        return ports, [launched.credentials[place] for place in chosen]

    def _sockets(self, kind: str, copy: int) -> frozenset[socket.socket]:
        return frozenset(sock for place in self._places(kind) for sock in self._launch.sockets[copy][place])

    def _places(self, kind: str) -> list[int]:
        servers = self._launch.settings.servers
        return [place for place, server in enumerate(servers) if server.type == kind]
