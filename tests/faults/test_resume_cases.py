"""Resumes at another node that once missed or doubled a message, or got it in another order, each in a few steps."""

import itertools
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.faults.links import HOST, Link
from tests.support.browsing import listening_to, receive
from tests.support.installation import Installation, installed
from tests.support.nodes import RunningNode, command, knows_all, listening, running_node, subscribed
from tests.support.ports import free_ports
from tests.support.waiting import eventually, eventually_async, wait_until

CHANNEL = "a"
TOKEN, NAMES, BOTH = "token", "names", "names and token"
MAX_NAMES = 16  # that a server considers

by_all_means = pytest.mark.parametrize("memory", [TOKEN, NAMES, BOTH])


class Mesh:
    """Nodes in this process, each linked to each other. `links[A, B]` is what A sends to B."""

    def __init__(self, names: str) -> None:
        self.ports = {name: free_ports(2) for name in names}
        self.links = {ends: Link(self.ports[ends[1]][1]) for ends in itertools.permutations(names, 2)}
        self.nodes: dict[str, RunningNode] = {}
        self._stacks: dict[str, AsyncExitStack] = {}

    async def start(self, name: str) -> None:
        """Start a node."""
        stack = self._stacks[name] = AsyncExitStack()
        mine = [link for (sender, _), link in self.links.items() if sender == name]
        client, admin = map(listening, self.ports[name])
        peers = [{"host": HOST, "port": link.port} for link in mine]
        self.nodes[name] = await stack.enter_async_context(
            running_node(sockets=(client, admin), cluster=peers)
        )

    async def stop(self, name: str) -> None:
        """Stop a node."""
        del self.nodes[name]
        await self._stacks.pop(name).aclose()

    async def restart(self, name: str) -> None:
        """Stop a node and start it again."""
        await self.stop(name)
        await self.start(name)

    async def settle(self) -> None:
        """Wait until the nodes, which must all run, have heard each other."""
        await eventually(lambda: all(map(knows_all, self.nodes.values())), "nodes that know each other")

    async def publish(self, name: str, *unique_ids: str) -> None:
        """Publish messages at a node, one after the other."""
        for unique_id in unique_ids:
            await self.nodes[name].publish({"subscribers": [CHANNEL], "uniqueID": unique_id})

    async def has(self, name: str, unique_id: str) -> None:
        """Wait until a node has a message."""

        async def is_replayed() -> bool:
            async with connect(self.nodes[name].url()) as browser:
                await browser.send(json.dumps({"command": "subscribe", "data": [CHANNEL]}))
                return unique_id in (await replayed(browser, {"age": 60_000}))[0]

        await eventually_async(is_replayed, f"{unique_id} at {name}")


@asynccontextmanager
async def running_mesh(names: str, *running: str) -> AsyncIterator[Mesh]:
    """Run nodes of these names, all or only some of them."""
    mesh = Mesh(names)
    for link in mesh.links.values():
        await link.start()
    for name in running or names:
        await mesh.start(name)
    try:
        if not running:
            await mesh.settle()
        yield mesh
    finally:
        for link in mesh.links.values():
            link.cut()
        for name in list(mesh.nodes):
            await mesh.stop(name)
        for link in mesh.links.values():
            await link.close()


async def replayed(browser: ClientConnection, data: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Send `replay`; return the uniqueIDs that come before its `ack`, and that."""
    await browser.send(json.dumps({"command": "replay", "data": data, "id": 2}))
    found = []
    while "uniqueID" in (frame := json.loads(await browser.recv())):
        found.append(frame["uniqueID"])
    assert frame["type"] == "ack"
    return found, frame


class Reader:
    """A client that goes from node to node, and what it had."""

    def __init__(self, mesh: Mesh, memory: str) -> None:
        self.mesh = mesh
        self.memory = memory
        self.names: list[str] = []
        self._token = ""
        self._browser: ClientConnection | None = None

    async def connect(self, name: str) -> None:
        """Connect for the first time."""
        self._browser = await connect(self.mesh.nodes[name].url())
        self._token = (await command(self._browser, "subscribe", [CHANNEL]))["last"]

    async def receive(self, count: int) -> list[str]:
        """Receive messages."""
        assert self._browser is not None
        found = [json.loads(await self._browser.recv())["uniqueID"] for _ in range(count)]
        self.names += found
        return found

    async def leave(self) -> None:
        """Disconnect, with a token that covers what was received."""
        assert self._browser is not None
        self._token = (await command(self._browser, "subscribe", []))["last"]
        await self._browser.close()

    async def resume(self, name: str) -> tuple[list[str], bool]:
        """Resume at a node; return what was missed, and whether the node says that this is all."""
        self._browser = await subscribed(self.mesh.nodes[name].url(), CHANNEL)
        names = self.names[-MAX_NAMES:] if self.memory != TOKEN else []
        tokens = [self._token] if self.memory != NAMES else []
        found, ack = await replayed(self._browser, {"after": [*names, *tokens]})
        assert ack["count"] == len(found)
        self.names += found
        return found, ack["recovered"]

    async def close(self) -> None:
        """Disconnect."""
        assert self._browser is not None
        await self._browser.close()


@asynccontextmanager
async def reader(mesh: Mesh, memory: str, name: str) -> AsyncIterator[Reader]:
    """A client that is connected to a node."""
    made = Reader(mesh, memory)
    await made.connect(name)
    try:
        yield made
    finally:
        await made.close()


def check_missed(found: Sequence[str], missed: str, memory: str, *, recovered: bool) -> None:
    """The message comes. With a token, the node knows that nothing else is missing."""
    assert found == [missed]
    assert recovered or memory == NAMES


@by_all_means
async def test_a_node_that_has_just_started_receives_a_new_message_before_older_ones(memory: str) -> None:
    async with running_mesh("AB", "A") as mesh, reader(mesh, memory, "A") as client:
        await mesh.publish("A", "x1", "x2", "x3")
        await client.receive(3)
        await client.leave()
        mesh.links["A", "B"].hold()
        await mesh.start("B")
        await mesh.publish("B", "m")
        mesh.links["A", "B"].heal()
        await mesh.has("B", "x3")
        await mesh.settle()
        found, recovered = await client.resume("B")
        check_missed(found, "m", memory, recovered=recovered)


@by_all_means
@pytest.mark.parametrize("count", [1, 20])
async def test_a_message_is_late_at_the_node_that_a_client_comes_from(memory: str, count: int) -> None:
    async with running_mesh("AB") as mesh, reader(mesh, memory, "A") as client:
        mesh.links["B", "A"].hold()
        await mesh.publish("B", "m")
        await mesh.publish("A", *(f"x{number}" for number in range(count)))
        await client.receive(count)
        await client.leave()
        await mesh.has("B", f"x{count - 1}")
        found, recovered = await client.resume("B")
        assert "m" in found
        if memory == NAMES:  # it had more than it can name
            assert not recovered
        else:
            check_missed(found, "m", memory, recovered=recovered)


@by_all_means
async def test_a_message_is_late_and_the_next_node_was_restarted_after_it(memory: str) -> None:
    async with running_mesh("ABC") as mesh, reader(mesh, memory, "A") as client:
        mesh.links["C", "A"].hold()
        await mesh.publish("C", "m")
        await mesh.has("B", "m")
        await mesh.restart("B")
        await mesh.publish("A", "x")
        await client.receive(1)
        await client.leave()
        await mesh.has("B", "x")
        found, recovered = await client.resume("B")
        assert "m" in found or not recovered


async def test_order_after_two_nodes_were_restarted_at_the_same_time() -> None:
    """B does not know which process of C has ended, and queues for C what A sends, as A does too."""
    async with running_mesh("ABC") as mesh:
        await mesh.stop("C")
        await mesh.publish("A", *map(str, range(5)))
        await mesh.restart("B")
        await mesh.publish("A", *map(str, range(5, 10)))
        await mesh.has("B", "9")
        mesh.links["A", "C"].hold()
        await mesh.start("C")
        async with reader(mesh, TOKEN, "C") as client:
            await eventually(lambda: mesh.links["B", "C"].answers >= 2, "B to have sent what it has")
            mesh.links["A", "C"].heal()
            assert await client.receive(10) == [str(number) for number in range(10)]


@by_all_means
async def test_a_client_has_a_message_before_the_node(memory: str) -> None:
    async with running_mesh("ABC") as mesh, reader(mesh, memory, "A") as client:
        mesh.links["A", "B"].hold()
        mesh.links["A", "C"].hold()
        await mesh.publish("A", "m")
        await client.receive(1)
        await client.leave()
        for name in "BC":
            assert (await client.resume(name))[0] == []
            await client.leave()
        await client.resume("C")
        mesh.links["A", "C"].heal()
        mesh.links["A", "B"].heal()
        await mesh.has("C", "m")
        await mesh.publish("C", "next")
        assert await client.receive(1) == ["next"]
        await client.leave()
        assert await client.resume("B") == ([], True)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Installation]]:
    """Two nodes; the first one has a hub and two edges."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(installed(tmp_path / name)) for name in "AB")
        peers = [{"host": HOST, "port": each.admin_port} for each in (first, second)]
        first.write(workers=2, cluster=peers)
        second.write(cluster=peers)
        for start in [stack.enter_context(each.begin("start")) for each in (first, second)]:
            start.communicate()
        for node in (first, second):
            node.worker()
        yield [first, second]


def hub(node: Installation) -> int:
    """The pid of the process that accepts messages; 0 while none does."""
    status = node.answers() or {}
    return int(status["pid"]) if len(status.get("workers", ())) == 2 else 0


def test_the_successor_of_a_killed_hub_publishes_nothing_again(nodes: list[Installation]) -> None:
    first, second = nodes
    for number in range(5):
        first.publish(CHANNEL, uniqueID=f"m{number}")
    wait_until(lambda: second.status()["history.size"] == 5, "the messages")
    second.run("restart")
    with listening_to(second.client_port, CHANNEL) as client:
        first.publish(CHANNEL, uniqueID="m5")
        before = wait_until(lambda: hub(first), "both edges")
        psutil.Process(before).kill()
        wait_until(lambda: hub(first) not in (0, before), "another hub")
        wait_until(lambda: {each["state"] for each in first.status()["peers"]} == {"self", "up"}, "peers")
        first.publish(CHANNEL, uniqueID="m6")
        assert [each["uniqueID"] for each in receive(client, 2)] == ["m5", "m6"]
