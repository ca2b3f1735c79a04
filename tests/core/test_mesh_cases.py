"""Clusters in trouble, one case each: a client receives everything once and in order, or learns of a gap."""

from collections.abc import Iterator

import pytest

from tests.support.audit import Client, Publications
from tests.support.mesh import Mesh
from tests.support.readers import Memory, Transport

READERS = [
    (Transport.WEBSOCKET, Memory.BOTH),
    (Transport.WEBSOCKET, Memory.NAMES),
    (Transport.EVENTS, Memory.TOKEN),
    (Transport.POLL, Memory.TOKEN),
    (Transport.POLL, Memory.TWO_TOKENS),
]
all_readers = pytest.mark.parametrize(
    ("transport", "memory"), READERS, ids=[f"{a.value}-{b.value}" for a, b in READERS]
)
with_tokens = pytest.mark.parametrize(
    ("transport", "memory"),
    [each for each in READERS if each[1] is not Memory.NAMES],
    ids=[f"{a.value}-{b.value}" for a, b in READERS if b is not Memory.NAMES],
)


class Case:
    """A cluster of three nodes, what is published, and clients."""

    def __init__(self, **keys: object) -> None:
        self.mesh = Mesh("ABC", **keys).__enter__()  # type: ignore[arg-type]
        self.published = Publications(self.mesh)
        self.clients: list[Client] = []

    def client(
        self,
        node: str,
        transport: Transport = Transport.WEBSOCKET,
        memory: Memory = Memory.BOTH,
        place: int = 0,
    ) -> Client:
        """Connect a client."""
        client = Client.make(self.mesh, self.published, transport.value, transport, memory, "a")
        self.clients.append(client)
        assert client.connect(node, place)
        return client

    def publish(self, node: str, count: int = 1) -> list[str]:
        """Publish messages."""
        return [self.published.publish(node) for _ in range(count)]

    def slow_down(self, source: str, target: str, seconds: float) -> None:
        """Delay what a node sends to another."""
        self.mesh.links[source, target].delay = seconds

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.mesh.advance(seconds)

    def settle(self, seconds: float = 70.0) -> None:
        """Heal the links, and let all clients receive the rest."""
        for link in self.mesh.links.values():
            link.delay = 0.001
            link.heal()
        for _ in range(round(seconds)):
            self.wait(1.0)
            for client in self.clients:
                client.read()
        for client in self.clients:
            client.check_complete()


@pytest.fixture
def case() -> Iterator[Case]:
    """Three nodes that run."""
    made = Case()
    yield made
    made.mesh.close()


# Messages that are late at one node


@with_tokens
@pytest.mark.parametrize("count", [1, 12, 20])
def test_a_message_that_is_late_by_two_seconds_is_not_lost(
    case: Case, transport: Transport, memory: Memory, count: int
) -> None:
    """The client gets other messages meanwhile: more than it can name."""
    client = case.client("A", transport, memory)
    case.slow_down("B", "A", 2.0)
    [late] = case.publish("B")
    for _ in range(count):
        case.publish("C")
        case.wait(0.01)
        client.read()
    assert len(client.received) == count
    client.connect("B")
    case.settle()
    assert late in client.received
    assert not client.gaps


@all_readers
def test_one_name_does_not_override_what_a_token_shows(
    case: Case, transport: Transport, memory: Memory
) -> None:
    client = case.client("A", transport, memory)
    case.publish("A")
    case.wait(0.1)
    client.read()
    case.slow_down("B", "A", 2.0)
    case.publish("B")
    case.wait(0.01)
    case.publish("A")
    case.wait(0.5)
    client.read()
    client.connect("B")
    case.settle()


@all_readers
def test_a_node_that_was_started_meanwhile_does_not_continue_after_a_name(
    case: Case, transport: Transport, memory: Memory
) -> None:
    """It takes a message first, and then receives what had waited for it elsewhere."""
    client = case.client("A", transport, memory)
    case.publish("A", 3)
    case.wait(1.0)
    client.read()
    case.mesh.links["A", "B"].break_off()
    case.mesh.kill("B")
    case.publish("A", 3)
    case.wait(1.0)
    client.read()
    case.mesh.links["B", "A"].break_off()
    case.mesh.start("B")
    case.publish("B")
    case.wait(0.1)
    for link in case.mesh.links.values():
        link.heal()
    case.wait(0.5)
    client.connect("B")
    case.settle()


@all_readers
def test_a_token_younger_than_the_node_does_not_cover_what_its_predecessor_had(
    case: Case, transport: Transport, memory: Memory
) -> None:
    client = case.client("A", transport, memory)
    case.slow_down("C", "A", 1.6)
    case.publish("C")
    case.wait(0.1)
    case.mesh.kill("B")
    case.mesh.start("B")
    case.wait(0.5)
    case.publish("A")
    case.wait(0.1)
    client.read()
    client.connect("B")
    case.settle()


# What a client had before the node


@with_tokens
def test_what_a_client_had_before_a_node_is_not_sent_again(
    case: Case, transport: Transport, memory: Memory
) -> None:
    """Nor by the next node, to which it moves before the message is there."""
    client = case.client("A", transport, memory)
    case.slow_down("A", "B", 1.0)
    case.slow_down("A", "C", 1.4)
    case.publish("A", 3)
    case.wait(0.01)
    client.read()
    for node in "BC":
        client.connect(node)
        case.publish(node)
        case.wait(0.05)
        client.read()
    case.settle()
    assert len(client.received) == 5
    assert not client.gaps


# Restarts


def test_order_survives_overlapping_restarts(case: Case) -> None:
    """A node is down while another is restarted: its successor never learns the name of the first one's process."""
    client = case.client("A")
    case.mesh.kill("C")
    case.mesh.kill("B")
    case.mesh.start("B")
    case.wait(1.0)
    case.publish("A", 300)
    case.mesh.start("C")
    late = case.client("C")
    case.publish("A", 100)
    case.settle()
    assert len(client.received) == 400
    assert late.received[-100:] == client.received[-100:]


def test_a_message_costs_one_post_for_each_other_node_after_restarts(case: Case) -> None:
    case.mesh.kill("C")
    case.mesh.kill("B")
    case.mesh.start("B")
    case.wait(1.0)
    case.mesh.start("C")
    case.wait(30.0)
    before = case.mesh.posts()
    for _ in range(10):
        case.publish("A")
        case.wait(0.1)
    assert case.mesh.posts() == before + 20


# Several workers


@pytest.fixture
def workers() -> Iterator[Case]:
    """The same, and the first one has two processes with clients."""
    made = Case(workers={"A": 2})
    yield made
    made.mesh.close()


def test_a_new_edge_knows_what_was_evicted() -> None:
    case = Case(workers={"A": 2}, limits__history=20_000)
    client = case.client("A", place=0)
    client.read()
    client.disconnect()
    case.publish("A", 100)
    case.mesh.kill_edge("A", 1)
    case.mesh.start_edge("A", 1)
    case.wait(1.0)
    client.connect("A", place=1)
    case.settle()
    assert client.gaps
    case.mesh.close()


@all_readers
def test_the_successor_of_a_killed_hub_does_not_publish_the_history_again(
    workers: Case, transport: Transport, memory: Memory
) -> None:
    here, elsewhere = workers.client("A", transport, memory), workers.client("C", transport, memory)
    before = workers.publish("A", 5)
    workers.wait(0.5)
    workers.mesh.kill("B")
    workers.mesh.start("B")
    workers.wait(0.5)
    new = workers.client("B", transport, memory)
    after = workers.publish("A", 1)
    workers.wait(0.5)
    workers.mesh.kill_hub("A")
    workers.mesh.start_hub("A")
    workers.wait(5.0)
    here.connect("B")
    workers.settle()
    assert new.received == after
    for client in (here, elsewhere):
        assert not set(client.received) - {*before, *after}


@all_readers
def test_an_edge_that_lacks_evicted_messages_delivers_no_later_ones_before_the_report(
    transport: Transport, memory: Memory
) -> None:
    """It hangs while its hub is replaced, and joins when the history has moved on."""
    case = Case(workers={"A": 2}, limits__history=20_000)
    client = case.client("A", transport, memory, place=1)
    case.publish("A", 2)
    case.wait(0.3)
    client.read()
    case.mesh.stop_edge("A", 1)
    case.mesh.kill_hub("A")
    case.mesh.start_hub("A")
    case.wait(4.0)
    case.publish("A", 100)
    case.mesh.continue_edge("A", 1)
    for _ in range(20):
        case.wait(0.001)
        client.read()
    case.settle()
    assert client.gaps
    case.mesh.close()


@pytest.mark.parametrize("contact", ["after its edges", "before its edges"])
def test_the_clients_of_edges_learn_of_messages_that_were_given_up_while_there_was_no_hub(
    contact: str,
) -> None:
    case = Case(workers={"A": 2}, queue=6)
    clients = [case.client("A", place=place) for place in range(2)]
    case.mesh.kill_hub("A")
    case.publish("B", 20)
    case.wait(0.5)
    if contact == "before its edges":
        for place in range(2):
            case.mesh.stop_edge("A", place)
    case.mesh.start_hub("A")
    case.wait(15.0)
    for place in range(2):
        case.mesh.continue_edge("A", place)
    case.settle()
    assert all(client.gaps for client in clients)
    case.mesh.close()


# Messages that never arrive


def test_a_poll_that_waits_while_messages_are_lost_leads_to_the_report_of_the_gap(case: Case) -> None:
    """Its response is sent when they are given up, and the client continues before them."""
    client = case.client("C", Transport.POLL, Memory.TOKEN)
    case.mesh.links["B", "C"].break_off()
    case.publish("B", 2)
    for _ in range(3):
        case.wait(20.5)
        client.read()
    case.settle()
    assert client.gaps


@all_readers
def test_a_name_does_not_cover_messages_that_were_lost_after_it(
    case: Case, transport: Transport, memory: Memory
) -> None:
    client = case.client("B", transport, memory)
    case.publish("A")
    case.wait(0.05)
    case.mesh.links["A", "B"].break_off()
    case.publish("A")
    case.wait(70.0)  # until no history has it
    case.settle()
    assert client.gaps


def test_clients_are_not_left_without_messages_that_only_a_killed_node_had_passed_on(case: Case) -> None:
    """The node receives a later one by way of another node, and has not heard their own node yet."""
    client = case.client("A", Transport.EVENTS, Memory.TOKEN)
    case.slow_down("C", "A", 3.0)
    case.mesh.kill("C")
    case.mesh.start("C")
    case.publish("C", 3)
    case.slow_down("B", "A", 0.1)
    case.wait(0.05)
    case.publish("C")
    case.mesh.kill("B")
    case.slow_down("B", "A", 0.001)
    case.mesh.start("B")
    case.settle()
    assert client.gaps or client.received == [f"m{number}@C" for number in range(4)]


@all_readers
def test_a_node_does_not_vouch_for_a_killed_node_of_which_it_has_not_heard(
    case: Case, transport: Transport, memory: Memory
) -> None:
    """It is started shortly after that, and the others do not know yet that the killed one is gone."""
    client = case.client("C", transport, memory)
    client.read()
    case.publish("A", 20)
    case.publish("C")
    client.read()
    case.mesh.kill("A")
    case.wait(0.3)
    case.mesh.start("A")
    case.wait(2.0)
    client.connect("A")
    case.settle()


def test_a_client_learns_of_messages_that_were_given_up_before_the_first_contact() -> None:
    """It was connected when they were published: they are none of those for the node's predecessor."""
    case = Case(queue=6)
    case.mesh.kill("A")
    case.mesh.links["B", "A"].break_off()
    case.mesh.start("A")
    client = case.client("A", Transport.EVENTS, Memory.TOKEN)
    case.wait(0.5)
    case.publish("B", 20)
    case.wait(5.0)
    case.settle()
    assert client.gaps
    case.mesh.close()


def test_a_token_of_a_node_that_was_cut_off_for_long_shows_what_it_does_not_cover(case: Case) -> None:
    """The node of a message is gone for longer than tokens list it; this node never received the message."""
    client = case.client("C", Transport.POLL, Memory.TOKEN)
    for node in "AB":
        case.mesh.links[node, "C"].break_off()
        case.mesh.links["C", node].break_off()
    case.publish("A", 3)
    case.wait(1.0)
    case.mesh.kill("A")
    for _ in range(45):
        case.wait(20.0)
        client.read()
    client.connect("B")
    case.settle()
    assert client.gaps
