"""What the worker processes of a server do: one that is everything, or a hub and its edges."""

import os
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from aphlict.core.message import random_name
from aphlict.node import FINGERPRINT_SIZE, Node, ports_of
from aphlict.process.bootstrap import Launch
from aphlict.server.auth import Credentials
from aphlict.server.server import Port


class WorkerSpec(NamedTuple):
    """The job of one worker process."""

    name: str  # in the log
    make: Callable[[], Node]  # to be called in the process, once it has been forked
    sockets: frozenset[socket.socket]  # those that it listens on


def plan_workers(launched: Launch) -> list[WorkerSpec]:
    """The worker processes that the configuration asks for."""
    count = launched.settings.processes
    if count == 1:
        [copy] = launched.sockets
        sockets = frozenset(sock for each in copy for sock in each)

        def make() -> Node:
            settings = launched.settings
            return Node(settings, ports_of(settings, copy), launched.credentials, read=launched.files.recall)

        return [WorkerSpec("worker", make, sockets)]
    plan = _Plan(launched)
    return [plan.hub(), *(plan.edge(number) for number in range(count))]


class _Plan:
    """What the hub and the edges of one server share."""

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
        """The process that orders messages and serves publishers."""

        def make() -> Node:
            return Node(
                self._launch.settings,
                *self._select("admin", 0),
                fingerprint=self._fingerprint,
                started=self._started,
                edge_listener=self._edges.dup(),
                read=self._launch.files.recall,
            )

        return WorkerSpec("hub", make, self._sockets("admin", 0))

    def edge(self, number: int) -> WorkerSpec:
        """A process that serves clients."""

        def make() -> Node:
            return Node(
                self._launch.settings,
                *self._select("client", number),
                fingerprint=self._fingerprint,
                started=self._started,
                hub_address=self._address,
            )

        return WorkerSpec(f"edge {number + 1}", make, self._sockets("client", number))

    def _select(self, server_type: str, copy: int) -> tuple[list[Port], list[Credentials]]:
        """The ports and credentials as they are configured when a worker starts: a reload may have changed them."""
        launched, indexes = self._launch, self._indexes(server_type)
        ports = ports_of(launched.settings, launched.sockets[copy])
        return [ports[index] for index in indexes], [launched.credentials[index] for index in indexes]

    def _sockets(self, server_type: str, copy: int) -> frozenset[socket.socket]:
        sockets = self._launch.sockets[copy]
        return frozenset(sock for index in self._indexes(server_type) for sock in sockets[index])

    def _indexes(self, server_type: str) -> list[int]:
        servers = self._launch.settings.servers
        return [index for index, server in enumerate(servers) if server.type == server_type]
