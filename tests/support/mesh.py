"""A cluster in one thread: real nodes, whose network, clock and processes are those of a simulation.

The sockets are replaced, and nothing else: `Node`, `Relay`, `Peer`, the hubs and the handlers of both ports are those
of the server.
"""

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, cast

from aphlict.cluster.http_client import PeerResponse
from aphlict.cluster.outbox import PeerOptions
from aphlict.config.loader import from_keys
from aphlict.config.settings import Settings
from aphlict.core.hub import Hub
from aphlict.errors import AphlictError
from aphlict.node import Node
from aphlict.protocol.http import Request
from aphlict.server.admin_port import AdminHandler
from aphlict.server.client_port import ClientHandler
from aphlict.server.server import Port
from tests.support.network import AdminConnection, Link, PeerConnection, Server
from tests.support.simulation import Listener, Process, VirtualLoop, current_process, virtual

WARM_UP = 2.0  # seconds until new nodes have greeted each other


class Member:
    """A node of the cluster: its processes, whether they run or not. Without `workers`, the hub serves clients."""

    def __init__(self, name: str, workers: int) -> None:
        self.name = name
        self.starts = 0  # of the whole node
        self.workers = workers
        self.fingerprint = ""
        self.hub: tuple[Process, Node] | None = None
        self.edges: list[tuple[Process, Node] | None] = [None] * (workers if workers > 1 else 0)

    def client_process(self, place: int = 0) -> tuple[Process, Node] | None:
        """The process that accepts clients: one of several."""
        found = self.edges[place % len(self.edges)] if self.edges else self.hub
        return found if found is not None and found[0].is_alive and not found[0].is_stopped else None


class Mesh:
    """Nodes that are peers of each other. `names` are single letters.

    `workers`: of nodes with several processes. `clock_errors`: by how many seconds the Unix times of nodes differ.
    `queue`: how many messages a node queues for a peer. `keys`: of the configuration, with `__` for a dot.
    """

    def __init__(
        self,
        names: str = "ABC",
        *,
        workers: Mapping[str, int] | None = None,
        clock_errors: Mapping[str, float] | None = None,
        queue: int | None = None,
        **keys: Any,
    ) -> None:
        options = PeerOptions() if queue is None else PeerOptions(max_count=queue)
        self.loop = VirtualLoop()
        self.links = {(a, b): Link(self.loop) for a in names for b in names}
        self.members = {name: Member(name, (workers or {}).get(name, 1)) for name in names}
        self._clock_errors = clock_errors or {}
        self._keys = keys
        self._origins = 0
        self._cleanup = ExitStack()
        replaced = {
            "aphlict.node.Server": Server,
            "aphlict.node.new_origin_name": self._new_origin_name,
            "aphlict.cluster.peer.random": random.Random(0),
            "aphlict.cluster.peer.PeerConnection": lambda *arguments: PeerConnection(self, *arguments),
            "aphlict.cluster.relay.PeerOptions": lambda: options,
            "aphlict.workers.hub_side._is_same_user": lambda _socket: True,
        }
        self._cleanup.enter_context(virtual(self.loop, replaced))

    def __enter__(self) -> "Mesh":
        for name in self.members:
            self.start(name)
        self.advance(WARM_UP)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the simulation."""
        for member in self.members.values():
            for each in (member.hub, *member.edges):
                if each is not None:
                    each[0].kill()
        self.loop.run_ready()
        self._cleanup.close()

    def _new_origin_name(self) -> str:
        """Names that show the node: they make failures readable."""
        process = current_process.get()
        assert process is not None
        self._origins += 1
        return f"{process.name[0]}{self._origins:07}"

    @property
    def now(self) -> float:
        """Seconds, monotonic."""
        return self.loop.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.advance(seconds)

    def hub(self, name: str) -> Hub:
        """The hub of a node that runs: with several workers, of its hub process."""
        running = self.members[name].hub
        assert running is not None
        return running[1].hub

    def hubs(self) -> list[Hub]:
        """The hubs of all processes that run."""
        processes = [each for member in self.members.values() for each in (member.hub, *member.edges)]
        return [each[1].hub for each in processes if each is not None]

    def hub_process(self, name: str) -> Process | None:
        """The process that accepts messages, if it runs."""
        running = self.members[name].hub
        return running[0] if running is not None and running[0].is_alive else None

    # Processes

    def start(self, name: str) -> None:
        """Start a node that does not run."""
        member = self.members[name]
        member.starts += 1
        member.fingerprint = f"{name}{member.starts}".ljust(16, "-")
        self.start_hub(name)
        for place in range(len(member.edges)):
            self.start_edge(name, place)

    def start_hub(self, name: str) -> None:
        """Start the process with the peers; for its edges, it has the same address each time."""
        member = self.members[name]
        member.hub = self._start_node(
            name, "hub", edge_listener=Listener(address=name) if member.edges else None
        )

    def start_edge(self, name: str, place: int) -> None:
        """Start one of several processes with clients."""
        self.members[name].edges[place] = self._start_node(name, f"edge{place}", hub_address=name)

    def _start_node(self, name: str, kind: str, **arguments: Any) -> tuple[Process, Node]:
        member = self.members[name]
        settings = self._settings(member)
        ports = [Port(each, ()) for each in settings.servers]
        if member.edges:
            ports = [each for each in ports if each.settings.type == ("client", "admin")[kind == "hub"]]
        process = Process(self.loop, f"{name}{member.starts} {kind}", self._clock_errors.get(name, 0.0))
        started: list[Node] = []

        def start() -> None:
            node = Node(settings, ports, [], fingerprint=member.fingerprint, **arguments)
            started.append(node)
            asyncio.get_running_loop().create_task(node.start())

        process.call(start)
        return process, started[0]

    def _settings(self, member: Member) -> Settings:
        raw = {
            "servers": [{"type": "client", "port": 1}, {"type": "admin", "port": 2}],
            "cluster": [{"host": name, "port": 2} for name in self.members],
            "pidfile": "/nowhere/pid",
            "drain.time": 0,
            "workers": member.workers,
            **{name.replace("__", "."): value for name, value in self._keys.items()},
        }
        return from_keys(raw)

    def kill(self, name: str) -> None:
        """Kill all processes of a node."""
        member = self.members[name]
        for place in range(len(member.edges)):
            self.kill_edge(name, place)
        self.kill_hub(name)

    def kill_hub(self, name: str) -> None:
        """Kill the process with the peers."""
        member = self.members[name]
        assert member.hub is not None
        process, member.hub = member.hub[0], None
        self._exit(process)
        for other in self.members:
            self.links[other, name].reset()
            self.links[name, other].connections.clear()

    def kill_edge(self, name: str, place: int) -> None:
        """Kill a process with clients."""
        edge = self.members[name].edges[place]
        if edge is not None:
            self.members[name].edges[place] = None
            self._exit(edge[0])

    def stop_edge(self, name: str, place: int) -> None:
        """Stop a process with clients, as by SIGSTOP."""
        edge = self.members[name].edges[place]
        assert edge is not None
        edge[0].stop()

    def continue_edge(self, name: str, place: int) -> None:
        """Let a stopped process continue."""
        edge = self.members[name].edges[place]
        assert edge is not None
        edge[0].resume()

    def _exit(self, process: Process) -> None:
        process.kill()
        self.loop.run_ready()

    # Requests

    def receive(
        self, process: Process, request: Request, body: bytes, respond: Callable[[PeerResponse], None]
    ) -> None:
        """A request has arrived at an admin port."""
        connection = cast("Any", AdminConnection(respond))

        def handle() -> None:
            try:
                self._admin(process).on_request(connection, request, body)
            except AphlictError as error:
                connection.reject(error, request)

        process.call_soon(handle)

    def _admin(self, process: Process) -> AdminHandler:
        [handler] = [
            cast("Server", each.hub[1].server).handlers["admin"]
            for each in self.members.values()
            if each.hub is not None and each.hub[0] is process
        ]
        assert isinstance(handler, AdminHandler)
        return handler

    def publish(
        self, name: str, unique_id: str, *channels: str, instance: str = "default"
    ) -> Callable[[], bool]:
        """Publish a message at a node that runs; the result says whether it was acknowledged."""
        process = self.hub_process(name)
        assert process is not None
        responses: list[PeerResponse] = []
        body = json.dumps({"uniqueID": unique_id, "subscribers": channels or ("a",)}).encode()
        self.receive(
            process, Request("POST", f"/?instance={instance}", 1, {}, len(body)), body, responses.append
        )
        self.loop.run_ready()
        return lambda: bool(responses) and responses[0].status == 200

    def posts(self) -> int:
        """How often all nodes that run have sent a message to another, since their start."""
        nodes = [each.hub[1] for each in self.members.values() if each.hub is not None]
        statuses: list[dict[str, Any]] = []
        for node in nodes:
            node.status("default", statuses.append)
        return sum(peer["sent"] for status in statuses for peer in status["peers"])

    def clients(self, name: str, place: int = 0) -> tuple[Process, Server, ClientHandler] | None:
        """What a client of a node connects to."""
        running = self.members[name].client_process(place)
        if running is None:
            return None
        server = cast("Server", running[1].server)
        if not server.accepts:
            return None
        handler = server.handlers["client"]
        assert isinstance(handler, ClientHandler)
        return running[0], server, handler
