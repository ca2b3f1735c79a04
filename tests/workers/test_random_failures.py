"""Hubs and edges that fail at random: a client that resumes misses nothing and receives nothing twice, or is told.

The streams are real, hubs and edges are objects of the test: a process that is killed loses what it has not sent yet.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from aphlict.core.hub import Hub, MessageReceipt, Recovery
from aphlict.core.message import Delivery
from aphlict.core.sequencer import Greeting
from aphlict.workers.edge_side import HubConnector
from aphlict.workers.hub_side import EdgePool
from tests.support.hub import FakeSubscriber
from tests.support.waiting import eventually
from tests.workers.links import listening, make_edge, make_hub, make_message

EDGES = 3
CLIENTS = 6
STEPS = 120
HISTORY = 40_000  # bytes: about 30 messages
KILLS = 3  # of a hub, in 100 steps
PEER = "peerpeer"
REFRESH = 5  # messages after which a client fetches another token
MAX_NAMED = 14  # that a request to resume can name, or a token


class Cluster:
    """A node of one hub and several edges, another node that sends it messages, and clients."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log: list[str] = []
        self.errors: list[str] = []
        self.published: list[str] = []  # uniqueIDs, in the order of their publication
        self.numbers: dict[str, tuple[str, int]] = {}  # the origin and number of each
        self.hubs = 0
        self.peer_number = 0  # the last one that the other node has
        self.peer_sent = 0  # the last one that the hub has confirmed, or that the other node has given up
        self.hub = make_hub()
        self.pool: EdgePool | None = None
        self.address = ""
        self.edges: list[Edge] = []
        self.connected: list[Edge] = []  # when the last hub was killed
        self.clients: list[Client] = []

    async def start_hub(self) -> None:
        """Start a hub, as the successor of the last one."""
        self.hubs += 1
        self.hub = make_hub(HISTORY, f"hub{self.hubs:05d}")
        sock, self.address = listening()
        self.pool = EdgePool(self.hub, EDGES)
        await self.pool.start(sock)
        connected, self.connected = self.connected, []
        for edge in connected:
            edge.connect()
        if self.random.random() < 0.8:  # usually, edges have joined before other nodes send requests
            await eventually(lambda: all(edge.is_up_to_date for edge in connected), "the edges")
        self.greet()

    def is_connected(self) -> bool:
        """Whether all edges are connected to the hub, and up to date."""
        return all(each.is_up_to_date for each in self.edges)

    def kill_hub(self) -> None:
        """Close all its streams, without what is buffered."""
        assert self.pool is not None
        self.pool.close()
        self.pool = None
        self.connected = [edge for edge in self.edges if edge.connector is not None]
        for edge in self.connected:
            edge.disconnect()
        self.hub = make_hub()

    def greet(self) -> None:
        """Let the other node send a request."""
        now = time.monotonic()
        self.hub.sequencer.on_greeting(Greeting("p" * 16, PEER, self.peer_sent, 1000.0), now)
        if self.pool is not None:
            self.pool.flush()

    def publish(self, count: int) -> None:
        """Publish messages at the hub."""
        names = [f"{len(self.published) + n}" for n in range(count)]
        self.published += names
        if self.pool is not None:
            messages = [make_message(name) for name in names]
            self.pool.publish(messages, time.monotonic(), lambda _receipts: None)
            self.numbers |= {each.unique_id: (each.origin, each.number) for each in messages}

    def publish_elsewhere(self, count: int) -> None:
        """Publish messages at the other node."""
        self.peer_number += count
        for number in range(self.peer_number - count + 1, self.peer_number + 1):
            self.published.append(f"p{number}")
            self.numbers[f"p{number}"] = PEER, number

    def send(self, *, shuffled: bool) -> None:
        """Let the other node send what has not been confirmed."""
        if self.pool is None:
            return
        numbers = list(range(self.peer_sent + 1, self.peer_number + 1))
        if shuffled:  # those of two instances, in separate requests
            numbers = numbers[::2] + numbers[1::2]
        self.greet()
        messages = [make_message(f"p{number}", 0, number, PEER) for number in numbers]
        last = self.peer_number

        def on_receipts(_receipts: list[MessageReceipt]) -> None:
            self.peer_sent = max(self.peer_sent, last)

        if messages:
            self.pool.publish(messages, time.monotonic(), on_receipts)

    def give_up(self) -> None:
        """Let the other node drop what it has not sent."""
        self.peer_sent = self.peer_number
        self.greet()

    def wait_for_nothing(self, later: float) -> None:
        """Give up everywhere what is missing."""
        now = time.monotonic() + later
        self.hub.sequencer.run(now)
        if self.pool is not None:
            self.pool.flush()
        for edge in self.edges:
            edge.hub.sequencer.run(now)

    def step(self) -> Callable[[], None]:
        """Choose what happens next."""
        choose = self.random.choice
        edge, client = choose(self.edges), choose(self.clients)
        return self.random.choices(
            [
                lambda: self.publish(self.random.randint(1, 4)),
                lambda: self.publish_elsewhere(self.random.randint(1, 4)),
                lambda: self.send(shuffled=False),
                lambda: self.send(shuffled=True),
                client.move,
                client.refresh,
                edge.disconnect,
                edge.connect,
                edge.replace,
                self.give_up,
                lambda: self.wait_for_nothing(2.0),
                lambda: self.publish(50),
            ],
            [20, 15, 15, 5, 20, 10, 4, 15, 2, 1, 2, 1],
        )[0]


class Edge:
    """An edge, connected or not."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.connector: HubConnector | None = None
        self.has_joined = False  # since it was started: only then it accepts clients
        self.hub = self._make()

    def _make(self) -> Hub:
        def work() -> None:
            while hub.run_slice():
                pass

        def wake() -> None:
            asyncio.get_running_loop().call_soon(work)

        hub = make_edge(HISTORY, wake)
        self.accepted = set[str]()
        hub.on_accepted = lambda message, _at: self.accepted.add(message.unique_id)
        hub.sequencer.on_gap = self.on_gap
        return hub

    @property
    def is_up_to_date(self) -> bool:
        """Whether it has everything that the hub has."""
        return self.has_joined and self.connector is not None and self.connector.up_to_date.is_set()

    def connect(self) -> None:
        """Connect it to the hub, if it is not."""
        if self.connector is None and self.cluster.pool is not None:
            self.connector = HubConnector(self.hub, self.cluster.address, self.on_gap)
            self.connector.start()
            self._joining = asyncio.create_task(self._wait_until_joined(self.connector))

    async def _wait_until_joined(self, connector: HubConnector) -> None:
        await connector.up_to_date.wait()
        self.has_joined = True

    def disconnect(self) -> None:
        """Close its stream."""
        if self.connector is not None:
            self.connector.close()
            self.connector = None
            self._joining.cancel()

    def replace(self) -> None:
        """Kill it, and start another one, unless it is the last one that accepts clients."""
        if [each for each in self.cluster.edges if each.has_joined] != [self]:
            self.disconnect()
            self.has_joined = False
            self.hub = self._make()
            self.move_clients()
            self.connect()

    def on_gap(self) -> None:
        """Disconnect all clients."""
        self.cluster.log.append(f"gap at {self.cluster.edges.index(self)}")
        self.move_clients()

    def move_clients(self) -> None:
        """Disconnect each client, and let it connect to any edge soon."""
        for client in self.cluster.clients:
            if client.connection is not None and client.connection.edge is self:
                client.connection.close()
                asyncio.get_running_loop().call_soon(client.connect)


class Connection(FakeSubscriber):
    """A connection of a client to an edge: the receiver of its messages."""

    def __init__(self, client: "Client", edge: Edge) -> None:
        super().__init__()
        self.client = client
        self.edge = edge
        self.hub = edge.hub
        self.subscriber = self.hub.join("default", self)
        self.hub.subscribe(self.subscriber, ["A"])

    def deliver(self, delivery: Delivery, /) -> None:
        """Pass a message on, unless the connection is closed."""
        if self.client.connection is self:
            self.client.receive(delivery.unique_id)

    def close(self) -> None:
        """Close it."""
        self.hub.leave(self.subscriber)
        self.client.connection = None


class Client:
    """A client that resumes with its last token and the names of the messages that it received since."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.connection: Connection | None = None
        self.token: str | None = None
        self.recent: list[str] = []
        self.received: set[str] = set()
        self.repeatable: set[str] = set()  # received while more messages had come than a request can name
        self.numbers: dict[str, int] = {}  # of the last message of each origin
        self.first = 0  # the first message that it has to receive, in the order of publication

    def note(self, line: object) -> None:
        """Record what happens to it."""
        self.cluster.log.append(f"{self.name} {line}")

    def receive(self, name: str) -> None:
        """Record a message, and verify that it is new and in order."""
        origin, number = self.cluster.numbers[name]
        self.note(f"receives {name}: {origin} {number}")
        if name in self.received and name in self.repeatable:
            return
        if name in self.received:
            self.cluster.errors.append(f"{self.name} receives {name} twice")
        if number <= self.numbers.get(origin, 0):
            self.cluster.errors.append(f"{self.name} receives {name} too late")
        self.numbers[origin] = number
        self.received.add(name)
        self.recent.append(name)
        if len(self.recent) > REFRESH:
            self.refresh()

    def refresh(self) -> None:
        """Fetch a resume token, as an `ack` after everything that was delivered: not while a message is."""
        asyncio.get_running_loop().call_soon(self._refresh, self.connection)

    def _refresh(self, connection: Connection | None) -> None:
        if connection is None or connection is not self.connection:
            return
        token = connection.hub.resume_token(connection.subscriber, time.monotonic())
        if token is not None and token != self.token:
            self.note(f"has {token}")
            self.token = token
            self.recent.clear()

    def move(self) -> None:
        """Reconnect."""
        if self.connection is not None:
            self.connection.close()
        self.connect()

    def connect(self) -> None:
        """Connect to any edge that accepts clients, unless it is connected, and resume."""
        if self.connection is not None:
            return
        edge = self.cluster.random.choice([each for each in self.cluster.edges if each.has_joined])
        connection = self.connection = Connection(self, edge)
        hub = edge.hub
        token = self.token or ""
        if len(self.recent) + token.count("~", 1) > MAX_NAMED:
            self.repeatable |= self.received
        after = [*self.recent[-MAX_NAMED:], *([token] if token else [])]
        self.note(f"resumes after {after} at {self.cluster.edges.index(edge)}: {hub.origins.version()}")
        resumption = hub.resume(connection.subscriber, after, time.monotonic())

        def on_replayed(recovery: Recovery) -> None:
            self.note(recovery)
            assert recovery.recovered == resumption.recovered
            self._refresh(connection)

        if not resumption.recovered:
            self.reload()
        hub.replay(connection.subscriber, resumption, on_replayed)

    def reload(self) -> None:
        """Everything that was published is known."""
        self.received.clear()
        self.numbers.clear()
        self.first = len(self.cluster.published)

    def missing(self) -> list[str]:
        """Return what this client lacks of the messages that edges have accepted which have not been killed."""
        missing = set[str]().union(*(edge.accepted for edge in self.cluster.edges)) - self.received
        return [each for each in self.cluster.published[self.first :] if each in missing]


@asynccontextmanager
async def running(seed: int) -> AsyncIterator[Cluster]:
    """Run a cluster with its clients."""
    cluster = Cluster(seed)
    cluster.edges = [Edge(cluster) for _ in range(EDGES)]
    await cluster.start_hub()
    for edge in cluster.edges:
        edge.connect()
    await eventually(cluster.is_connected, "the edges")
    cluster.clients = [Client(cluster, f"client {number}") for number in range(CLIENTS)]
    for client in cluster.clients:
        client.move()
    try:
        yield cluster
    finally:
        for edge in cluster.edges:
            edge.disconnect()
        if cluster.pool is not None:
            cluster.pool.close()


async def let_pass(turns: int) -> None:
    """Let the event loop do some turns."""
    for _ in range(turns):
        await asyncio.sleep(0)


# A connection that is cancelled while it is opened is closed by the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(100))
async def test_clients_miss_nothing_or_are_told(seed: int) -> None:
    async with running(seed) as cluster:
        for _ in range(STEPS):
            if cluster.random.random() * 100 < KILLS:
                cluster.log.append("the hub is killed")
                cluster.kill_hub()
                await let_pass(cluster.random.randint(0, 20))
                await cluster.start_hub()
            cluster.step()()
            await let_pass(cluster.random.choice([0, 0, 1, 3, 10]))
            assert cluster.errors == [], cluster.log[-200:]
        for edge in cluster.edges:
            edge.connect()
        await eventually(cluster.is_connected, "the edges")
        cluster.send(shuffled=False)
        cluster.publish(1)
        await eventually(lambda: cluster.peer_sent == cluster.peer_number, "the messages of the other node")
        await let_pass(50)
        cluster.wait_for_nothing(2.0)
        await let_pass(50)
        versions = [each.hub.origins.version() for each in cluster.edges]
        assert versions == [cluster.hub.origins.version()] * EDGES
        assert cluster.errors == []
        assert {each.name: each.missing() for each in cluster.clients if each.missing()} == {}
