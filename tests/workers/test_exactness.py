"""Version vectors of a hub and its edges: a client that resumes at any of them misses nothing, or is told."""

import asyncio
import math
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from itertools import permutations

from websockets.asyncio.client import ClientConnection

from aphlict.config.settings import ServerSettings, Settings
from aphlict.core.hub import Hub
from aphlict.core.sequencer import Greeting, Report
from aphlict.core.state import HubState, describe, describe_origins
from aphlict.node import Node
from aphlict.server.auth import load_credentials
from aphlict.server.server import Port
from aphlict.workers.edge_side import HubConnector
from aphlict.workers.hub_side import EdgePool
from aphlict.workers.ipc import HistoryRecord, OriginsRecord, Publish, encode, pack
from tests.support.hub import join
from tests.support.nodes import command, subscribed
from tests.support.nodes import listening as listening_port
from tests.support.waiting import eventually
from tests.workers.links import (
    ORIGIN,
    answered,
    distributing,
    joined,
    kept,
    listening,
    make_edge,
    make_hub,
    make_message,
    packed,
    publish,
    resume,
    state_of_new_hub,
    token,
)

PEER = "peerpeer"  # the origin of another node
MAX_MESSAGES = 4096  # that the history of an instance keeps


def receive(pool: EdgePool, *numbers: int) -> None:
    """Publish messages of another node at the hub of a pool."""
    messages = [make_message(f"p{number}", 0, number, PEER) for number in numbers]
    pool.publish(messages, time.monotonic(), lambda _receipts: None)


def greet(hub: Hub, after: int, age: float = 1000.0) -> None:
    """Let another node announce that it has sent its messages up to this number, or never will."""
    hub.sequencer.on_greeting(Greeting("p" * 16, PEER, after, age), time.monotonic())


async def has_number(hub: Hub, name: str, number: int) -> None:
    """Wait until a hub has the messages of an origin up to this number."""
    await eventually(lambda: hub.origins.version().get(name) == number, f"{name} {number}")


# Edges of one hub


async def test_a_token_of_one_edge_is_exact_at_another() -> None:
    hub, one, two = make_hub(), make_edge(), make_edge()
    async with distributing(hub) as (pool, address), joined(one, address), joined(two, address):
        greet(hub, 0)
        publish(pool, "0")
        receive(pool, 1)
        for edge in (one, two):
            await has_number(edge, PEER, 1)
        before = token(one)
        assert before == token(two)
        publish(pool, "1")
        receive(pool, 2)
        await has_number(one, PEER, 2)
        await has_number(two, PEER, 2)
        for edge in (one, two, hub):
            assert resume(edge, before) == (["1", "p2"], True)
            assert resume(edge, before, "1") == (["p2"], True)
            assert resume(edge, token(one)) == ([], True)


async def test_a_client_that_is_ahead_of_an_edge_receives_nothing_twice() -> None:
    hub, one, two = make_hub(), make_edge(), make_edge()
    async with distributing(hub) as (pool, address), joined(one, address):
        publish(pool, "0", "1")
        await has_number(one, ORIGIN, 2)
        ahead = token(one)
        two.origins.register(ORIGIN, 0, time.monotonic())  # an edge that has not received these yet
        two.origins.is_complete = True
        fake, subscriber = join(two, "A")
        results: list[object] = []
        two.replay_after(subscriber, [ahead], time.monotonic(), results.append)
        for number, name in enumerate("012", 1):
            two.publish(make_message(name, 0, number), time.monotonic())
        assert results == [(0, True)]
        assert fake.ids == ["2"]


async def test_a_new_edge_recovers_clients_of_the_others() -> None:
    hub, one, two = make_hub(), make_edge(), make_edge()
    async with distributing(hub) as (pool, address), joined(one, address):
        publish(pool, "0")
        await has_number(one, ORIGIN, 1)
        before = token(one)
        publish(pool, "1")
        async with joined(two, address):
            assert resume(two, before) == (["1"], True)
            assert token(two) == token(hub)


async def test_an_edge_accepts_its_own_tokens_while_the_hub_has_not_heard_all_peers() -> None:
    hub, edge = make_hub(), make_edge()
    hub.origins.is_complete = False
    async with distributing(hub) as (pool, address), joined(edge, address):
        assert resume(edge, token(edge)) == ([], True)
        before = token(edge)
        publish(pool, "0")
        await has_number(edge, ORIGIN, 1)
        assert resume(edge, before) == (["0"], True)
        assert resume(edge, token(edge)) == ([], True)


async def test_an_edge_that_was_disconnected_knows_what_it_missed() -> None:
    hub, edge, gaps = make_hub(), make_edge(), list[float]()
    async with distributing(hub) as (pool, address):
        async with joined(edge, address, gaps):
            publish(pool, "0")
            await has_number(edge, ORIGIN, 1)
            first = token(edge)
        publish(pool, "1")
        async with joined(edge, address, gaps):
            assert resume(edge, first) == (["1"], True)
            assert gaps == []
            second = token(edge)
        await eventually(lambda: answered(pool) == 0, "the end of the link")
        kept = [str(number) for number in range(1000, 1000 + MAX_MESSAGES)]
        publish(pool, "2", "3", *kept)
        while_away = token(edge)
        async with joined(edge, address, gaps):
            assert len(gaps) == 1
            third = token(edge)
            for after in (first, second, while_away, "0", "1", "2"):
                assert resume(edge, after) == (kept, False)
            assert resume(edge, "3") == (kept, True), "everything after it is there"
            publish(pool, "last")
            await has_number(edge, ORIGIN, MAX_MESSAGES + 5)
            assert resume(edge, third) == (["last"], True)


async def test_an_edge_that_missed_messages_of_an_unknown_node_knows_that() -> None:
    """Another node was started while this edge was disconnected."""
    hub, edge, gaps = make_hub(), make_edge(), list[float]()
    async with distributing(hub) as (pool, address):
        async with joined(edge, address, gaps):
            publish(pool, "0")
            await has_number(edge, ORIGIN, 1)
            gaps.clear()
        await eventually(lambda: answered(pool) == 0, "the end of the link")
        greet(hub, 0)
        receive(pool, *range(1, MAX_MESSAGES + 2))
        async with joined(edge, address, gaps):
            assert len(gaps) == 1


async def test_clients_are_disconnected_before_they_receive_what_is_left() -> None:
    """They would seem to have had everything before it."""
    hub, edge = make_hub(), make_edge()
    async with distributing(hub) as (pool, address):
        async with joined(edge, address):
            publish(pool, "0")
            await has_number(edge, ORIGIN, 1)
        client, _ = join(edge, "A")
        await eventually(lambda: answered(pool) == 0, "the end of the link")
        publish(pool, *map(str, range(1, MAX_MESSAGES + 3)))
        before: list[list[str]] = []
        connector = HubConnector(edge, address, lambda: before.append(client.ids))
        async with kept(connector):
            await asyncio.wait_for(connector.up_to_date.wait(), 20)
        assert before == [[]]
        assert client.ids[0] == "3"


async def test_an_edge_without_its_hub_recovers_nobody() -> None:
    hub, edge = make_hub(), make_edge()
    begin = time.monotonic()
    keeper = HubConnector(edge, "nowhere", lambda: None)
    _, subscriber = join(edge, "A")
    early = edge.resume_token(subscriber, begin + 100)
    assert early is not None
    for after in (early, token(hub), "0"):
        assert resume(edge, after) == ([], False)
    for other in (hub, edge):
        assert resume(other, early) == ([], False)
    keeper.close()


# Hubs that are replaced


async def test_a_new_hub_recovers_clients_of_its_predecessor() -> None:
    killed, edge, new_edge = make_hub(), make_edge(), make_edge()
    async with distributing(killed) as (pool, address), joined(edge, address):
        greet(killed, 4)
        receive(pool, 5)
        publish(pool, "0")
        await has_number(edge, ORIGIN, 1)
        before = token(edge)
        publish(pool, "1")
        receive(pool, 6)
        await has_number(edge, PEER, 6)
    hub = make_hub(origin="hubhub02")
    async with distributing(hub) as (pool, address), joined(edge, address), joined(new_edge, address):
        publish(pool, "2")
        await has_number(edge, "hubhub02", 1)
        await has_number(new_edge, "hubhub02", 1)
        for each in (hub, edge, new_edge):
            assert resume(each, before) == (["1", "p6", "2"], True)
            assert resume(each, token(edge)) == ([], True)
            [old] = [origin for origin in each.origins if origin.name == PEER]
            assert old.base == 4


async def test_edges_receive_what_only_one_of_them_had_of_a_killed_hub() -> None:
    ahead, behind, gaps = make_edge(), make_edge(), list[float]()
    killed = make_hub()
    async with distributing(killed) as (pool, address), joined(behind, address), joined(ahead, address):
        publish(pool, "0")
        await has_number(ahead, ORIGIN, 1)
        await has_number(behind, ORIGIN, 1)
    client, _ = join(behind, "A")
    for each in packed("1", "2", first=2):  # it was killed before it had sent these to the other edge
        ahead.publish(each.unpack(), each.at)
    hub = make_hub(origin="hubhub02")
    async with distributing(hub) as (_, address), joined(behind, address, gaps), joined(ahead, address, gaps):
        await eventually(lambda: client.ids == ["1", "2"], "what the other edge had")
        for here, there in permutations((behind, ahead, hub), 2):
            assert resume(here, token(there)) == ([], True)
        assert gaps == []


async def test_edges_receive_what_only_one_of_them_had_of_a_new_node() -> None:
    """The hub was killed between its first contact with another node and its next record to this edge."""
    ahead, behind, gaps = make_edge(), make_edge(), list[float]()
    killed = make_hub()
    async with distributing(killed) as (pool, address), joined(behind, address), joined(ahead, address):
        pass
    client, _ = join(behind, "A")
    ahead.origins.register(PEER, 7, time.monotonic())
    for message in packed("8", "9", first=8, origin=PEER):
        ahead.publish(message.unpack(), message.at)
    hub = make_hub(origin="hubhub02")
    async with (
        distributing(hub) as (pool, address),
        joined(behind, address, gaps),
        joined(ahead, address, gaps),
    ):
        pool.send_origins()
        await eventually(lambda: client.ids == ["8", "9"], "what the other edge had")
        behind.sequencer.run(time.monotonic() + 2)
        for process in (ahead, behind, hub):
            assert resume(process, token(ahead)) == ([], True)
            assert process.origins.version()[PEER] == 9
        assert gaps == []


async def test_an_edge_learns_that_it_missed_messages_of_a_new_node_which_another_has_evicted() -> None:
    ahead, behind, gaps = make_edge(), make_edge(), list[float]()
    killed = make_hub()
    async with distributing(killed) as (pool, address), joined(behind, address), joined(ahead, address):
        pass
    behind.sequencer.on_gap = lambda: gaps.append(0.0)
    client, _ = join(behind, "A")
    for each, age in zip(packed("1", "2", "3", origin=PEER), (62, 10, 9), strict=True):
        ahead.publish(each.unpack(), each.at - age)
    hub = make_hub(origin="hubhub02")
    async with distributing(hub) as (pool, address), joined(behind, address), joined(ahead, address):
        pool.send_origins()
        origin = await eventually(lambda: behind.origins.get(PEER), "the other node")
        assert origin is not None
        await eventually(lambda: origin.held, "messages that have to wait")
        behind.sequencer.run(time.monotonic() + 2)
        assert client.ids == ["2", "3"]
        assert len(gaps) == 1


async def check_that_two_of_four_are_evicted(hub: Hub) -> None:
    for number, expected in enumerate(
        ((["3", "4"], False), (["3", "4"], False), (["3", "4"], True), (["4"], True), ([], True))
    ):
        assert resume(hub, f"~2.{int(time.monotonic()):x}.{ORIGIN}{number}") == expected


async def test_a_new_hub_does_not_claim_messages_that_one_edge_has_evicted() -> None:
    """It receives the history of the other edge later, when there is no place for these any more."""
    long, new_edge, hub = make_edge(), make_edge(), make_hub(origin="hubhub02")
    messages = packed("1", "2", "3", "4")
    for each in messages:
        long.publish(each.unpack(), each.at)
    async with distributing(hub) as (_, address), FakeEdge.connected(address) as edge:
        await edge.send(HistoryRecord(messages[2:]))
        await has_number(hub, ORIGIN, 4)
        async with joined(long, address), joined(new_edge, address):
            await check_that_two_of_four_are_evicted(hub)
            await check_that_two_of_four_are_evicted(new_edge)


async def test_a_new_hub_does_not_claim_messages_that_it_does_not_keep() -> None:
    edge, new_edge, hub = make_edge(), make_edge(), make_hub(origin="hubhub02")
    for each, age in zip(packed("1", "2", "3", "4"), (62, 61, 10, 9), strict=True):
        edge.publish(each.unpack(), each.at - age)
    async with distributing(hub) as (_, address), joined(edge, address), joined(new_edge, address):
        await check_that_two_of_four_are_evicted(hub)
        await check_that_two_of_four_are_evicted(new_edge)


async def test_the_origin_of_a_killed_hub_has_ended() -> None:
    """What other nodes lack of it is sent to them immediately, and tokens do not list it for ever."""
    killed, edge, hub = make_hub(), make_edge(), make_hub(origin="hubhub02")
    async with distributing(killed) as (pool, address), joined(edge, address):
        publish(pool, "0", "1")
        pool.send_origins()
        await has_number(edge, ORIGIN, 2)
    async with distributing(hub) as (_, address), joined(edge, address):
        now = time.monotonic()
        peer = {ORIGIN: Report(1, 1.0, None)}
        lacking = hub.sequencer.lacking(peer, hub.history, 0, now)
        assert [entry.message.unique_id for entry in lacking] == ["1"]
        for each in (hub, edge):
            assert set(each.origins.version_at(each.history.sequence, now)) == {ORIGIN, "hubhub02"}
            assert set(each.origins.version_at(each.history.sequence, now + 3600)) == {"hubhub02"}


async def test_another_node_returns_what_a_killed_hub_has_sent_to_no_edge() -> None:
    killed, hub, peer, edge = make_hub(), make_hub(origin="hubhub02"), make_hub(origin=PEER), make_edge()
    name = killed.fingerprint
    peer.sequencer.on_greeting(Greeting(name, ORIGIN, 0, 1.0), time.monotonic())
    for each in packed("0", "1"):
        peer.publish(each.unpack(), each.at)
    async with distributing(killed) as (pool, address), joined(edge, address):
        publish(pool, "0")
        await has_number(edge, ORIGIN, 1)
    behind, _ = join(edge, "A")
    ahead, subscriber = join(edge, "A")
    edge.resume(subscriber, [token(peer)], time.monotonic())
    async with distributing(hub) as (pool, address), joined(edge, address):
        now = time.monotonic()
        peer.sequencer.on_greeting(Greeting(name, "hubhub02", 0, 1.0), now)
        hub.sequencer.on_report(peer.sequencer.report(now), now)
        entries = peer.sequencer.lacking(hub.sequencer.report(now), peer.history, 0, now)
        messages = [pack(entry.message, entry.at).unpack() for entry in entries]
        pool.publish(messages, now, lambda _receipts: None)
        await has_number(edge, ORIGIN, 2)
        assert behind.ids == ["1"]
        assert ahead.ids == []


async def test_a_new_hub_knows_other_nodes_from_its_edges() -> None:
    """What another node has sent to its predecessor is not from before the first contact."""
    killed, edge, gaps = make_hub(), make_edge(), list[float]()
    async with distributing(killed) as (pool, address), joined(edge, address):
        greet(killed, 0)
        pool.send_origins()
        await has_number(edge, PEER, 0)
    hub = make_hub(origin="hubhub02")
    async with distributing(hub) as (pool, address), joined(edge, address, gaps):
        greet(hub, 3)
        assert hub.origins.version()[PEER] == 0
        hub.sequencer.run(time.monotonic() + 2)
        await has_number(edge, PEER, 3)
        assert len(gaps) == 1


async def test_an_edge_that_joins_a_new_hub_late_learns_what_it_missed() -> None:
    """The hub took the messages that its predecessor had received for those before its first contact."""
    killed, hub, edge, gaps = make_hub(), make_hub(origin="hubhub02"), make_edge(), list[float]()
    async with distributing(killed) as (pool, address), joined(edge, address):
        greet(killed, 0)
        receive(pool, 1)
        await has_number(edge, PEER, 1)
    greet(hub, 3)
    assert hub.origins.version()[PEER] == 3
    async with distributing(hub) as (_, address), joined(edge, address, gaps):
        assert len(gaps) == 1


async def test_an_edge_learns_that_it_missed_what_another_one_has_evicted() -> None:
    hub, behind, ahead, gaps = make_hub(), make_edge(), make_edge(), list[float]()
    for edge in (behind, ahead):
        edge.origins.register(PEER, 0, time.monotonic())
    for each, age in zip(packed("1", "2", origin=PEER), (62, 61), strict=True):
        ahead.publish(each.unpack(), each.at - age)
    ahead.history.expire(time.monotonic())
    async with distributing(hub) as (_, address), joined(behind, address, gaps), joined(ahead, address):
        await eventually(lambda: gaps, "the report")
        await has_number(behind, PEER, 2)


# Messages that are lost on their way to the hub


async def test_a_hole_of_the_hub_is_one_of_its_edges() -> None:
    hub, edge, gaps = make_hub(), make_edge(), list[float]()
    async with distributing(hub) as (pool, address), joined(edge, address, gaps):
        greet(hub, 0)
        receive(pool, 1)
        await has_number(edge, PEER, 1)
        before = token(edge)
        greet(hub, 3)  # two of its messages never come
        hub.sequencer.run(time.monotonic() + 1)
        pool.send_origins()
        await has_number(edge, PEER, 3)
        assert len(gaps) == 1
        for each in (hub, edge):
            assert resume(each, before) == ([], False)
        receive(pool, 4)
        await has_number(edge, PEER, 4)
        assert resume(edge, token(edge)) == ([], True)
        assert len(gaps) == 1


async def test_an_edge_that_was_disconnected_learns_of_a_hole() -> None:
    hub, edge, gaps = make_hub(), make_edge(), list[float]()
    async with distributing(hub) as (pool, address):
        async with joined(edge, address, gaps):
            greet(hub, 0)
            receive(pool, 1)
            await has_number(edge, PEER, 1)
        before = token(edge)
        gaps.clear()
        greet(hub, 3)
        hub.sequencer.run(time.monotonic() + 1)
        receive(pool, 4)
        async with joined(edge, address, gaps):
            assert len(gaps) == 1
            assert resume(edge, before) == (["p4"], False)


async def test_messages_that_waited_for_their_turn_reach_the_edges_in_order() -> None:
    hub, edge = make_hub(), make_edge()
    client, _ = join(edge, "A")
    async with distributing(hub) as (pool, address), joined(edge, address):
        greet(hub, 0)
        receive(pool, 2)
        receive(pool, 3)
        publish(pool, "own")
        await eventually(lambda: client.ids == ["own"], "what waits for nothing")
        receive(pool, 1)
        await eventually(lambda: client.ids == ["own", "p1", "p2", "p3"], "the rest")


# The clients of an edge that is a process


class FakeEdge:
    """An edge that the test plays."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def connected(cls, address: str) -> AsyncIterator["FakeEdge"]:
        """Connect to a hub."""
        _, writer = await asyncio.open_unix_connection(address)
        with closing(writer):
            yield cls(writer)

    async def send(self, record: HistoryRecord) -> None:
        """Send a record."""
        self._writer.write(encode(record))
        await self._writer.drain()


class FakeHub:
    """A hub that the test plays, of an edge with one client port."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._link: socket.socket | None = None

    async def let_join(self, state: HubState) -> None:
        """Accept the edge, and send it the state of a hub with an empty history."""
        self._link, _ = await asyncio.get_running_loop().sock_accept(self._sock)
        await self.send(HistoryRecord([], state, is_last=True))

    async def send(self, record: HistoryRecord | OriginsRecord | Publish) -> None:
        """Send a record."""
        assert self._link is not None
        await asyncio.get_running_loop().sock_sendall(self._link, encode(record))

    def disconnect(self) -> None:
        """Close the stream."""
        assert self._link is not None
        self._link.close()


@asynccontextmanager
async def edge_of_fake_hub() -> AsyncIterator[tuple[FakeHub, Node, ClientConnection]]:
    """Run an edge with a client that is subscribed to channel A."""
    sock, address = listening()
    client = listening_port()
    server = ServerSettings(type="client", port=client.getsockname()[1], listen="127.0.0.1")
    settings = Settings(servers=(server,), pidfile="/nowhere/pid", drain_time=0.0)
    edge = Node(settings, [Port(server, [client])], [load_credentials(server)], hub_address=address)
    hub = FakeHub(sock)
    starting = asyncio.create_task(edge.start())
    await hub.let_join(state_of_new_hub())
    await starting
    yield hub, edge, await subscribed(f"ws://127.0.0.1:{server.port}/", "A")
    hub.disconnect()
    sock.close()
    await edge.drain()


async def test_clients_of_an_edge_that_missed_messages_have_to_resume() -> None:
    state = state_of_new_hub()
    async with edge_of_fake_hub() as (hub, edge, browser):
        hub.disconnect()
        await hub.let_join(state)  # nothing was evicted meanwhile
        await eventually(lambda: edge.hub.in_sync_until == math.inf, "the link")
        await command(browser, "subscribe", ["b"])
        hub.disconnect()
        other = make_hub()
        for _ in range(MAX_MESSAGES + 1):
            other.publish(make_message(str(other.counters.messages_in)), time.monotonic())
        await hub.let_join(describe(other))
        await asyncio.wait_for(browser.wait_closed(), 10)
        assert browser.close_code == 1013


async def test_clients_of_an_edge_have_to_resume_after_a_hole() -> None:
    other = make_hub()
    greet(other, 0)
    async with edge_of_fake_hub() as (hub, _, browser):
        await hub.send(OriginsRecord(describe_origins(other)))
        await command(browser, "subscribe", ["b"])
        greet(other, 1)
        other.sequencer.run(time.monotonic() + 1)
        await hub.send(OriginsRecord(describe_origins(other)))
        await asyncio.wait_for(browser.wait_closed(), 10)
        assert browser.close_code == 1013
