"""The relay with peers that respond: receivers, order, duplicates, number of requests."""

import asyncio
import logging

import psutil
import pytest

from aphlict.cluster.outbox import PeerOptions
from tests.cluster.messages import OWN, message, relay_to
from tests.cluster.nodes import HOST, NOBODY, FakeNode, NodeJsServer, started
from tests.support.waiting import eventually


async def test_each_peer_gets_each_message_once_in_order() -> None:
    async with started("B", "C", "D") as nodes, relay_to(*(node.settings for node in nodes)) as relay:
        for number in range(1000):
            relay.forward(message(str(number)))
        for node in nodes:
            await node.got(1000)
            assert node.texts == [str(number) for number in range(1000)]
            assert len(node.posts) < 20
            assert node.connections == 1


async def test_touched_names_everyone_but_the_receiver() -> None:
    async with started("B", "C", "D") as nodes, relay_to(*(node.settings for node in nodes)) as relay:
        await eventually(lambda: all(peer["state"] == "up" for peer in relay.status()))
        relay.forward(message("1"))
        for node in nodes:
            await node.got(1)
            assert sorted(node.messages[0]["touched"]) == sorted({OWN, "B", "C", "D"} - {node.fingerprint})
            assert node.posts[0].is_list is False


async def test_a_peer_that_has_a_message_does_not_receive_it() -> None:
    async with (
        FakeNode("B").start() as first,
        FakeNode("C").start() as second,
        relay_to(first.settings, second.settings) as relay,
    ):
        relay.forward(message("early", touched=["B"]))  # before anyone knows who is who
        await second.got(1)
        relay.forward(message("late", touched=["B"]))
        relay.forward(message("all"))
        await first.got(1)
        assert first.texts == ["all"]
        await second.got(3)


async def test_a_node_that_lists_itself_sends_itself_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        FakeNode(OWN).start() as itself,
        FakeNode("B").start() as other,
        relay_to(itself.settings, other.settings) as relay,
    ):
        relay.forward(message("1"))
        await eventually(lambda: relay.status()[0]["state"] == "self")
        relay.forward(message("2"))
        await other.got(2)
        assert [sorted(each["touched"]) for each in other.messages] == [[OWN], [OWN]]
        assert itself.posts == []
        assert itself.looks == 1
        assert relay.status()[0]["queued"] == 0
        assert await relay.close(1) == 0
    assert "this node itself" in caplog.text


async def test_one_post_is_for_one_instance() -> None:
    async with FakeNode("B").start() as node, relay_to(node.settings) as relay:
        for number in range(3):
            for instance in ("a/ö~&", "b"):
                relay.forward(message(str(number), instance))
        await node.got(6)
        assert [post.instance for post in node.posts] == ["a/ö~&", "b"]
        assert [[each["text"] for each in post.objects] for post in node.posts] == [["0", "1", "2"]] * 2


async def test_a_batch_stays_below_the_limit_of_a_body() -> None:
    async with FakeNode("B").start() as node, relay_to(node.settings) as relay:
        for number in range(20):
            relay.forward(message(str(number), padding="x" * 100_000))
        await node.got(20)
        assert max(len(post.objects) for post in node.posts) == 5


async def test_a_node_js_server_gets_single_objects_in_order(caplog: pytest.LogCaptureFixture) -> None:
    async with NodeJsServer("N").start() as node, relay_to(node.settings) as relay:
        for number in range(50):
            relay.forward(message(str(number)))
        await node.got(50)
        assert node.texts == [str(number) for number in range(50)]
        assert not any(post.is_list for post in node.posts)
        await eventually(lambda: relay.status()[0]["fingerprint"] == "N")
        relay.forward(message("touched", touched=["N"]))
        relay.forward(message("not touched"))
        await node.got(51)
        assert node.texts[-1] == "not touched"
    assert "is a Node.js server" in caplog.text


async def test_an_idle_connection_that_a_node_js_server_closes_costs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with NodeJsServer("N", idle=0.05).start() as node, relay_to(node.settings) as relay:
        for number in range(3):
            relay.forward(message(str(number)))
            await node.got(number + 1)
            await eventually(lambda: is_closed(node.port))
        assert node.looks == 3
        assert node.texts == ["0", "1", "2"]
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def is_closed(port: int) -> bool:
    """Whether this process has no connection to the port, not even one that only the other side has closed."""
    return port not in [each.raddr.port for each in psutil.Process().net_connections("tcp") if each.raddr]


async def test_a_silent_peer_is_probed() -> None:
    async with (
        FakeNode("B").start() as node,
        relay_to(node.settings, options=PeerOptions(probe_interval=0.05)),
    ):
        await eventually(lambda: node.looks > 2)
        assert node.connections == 1


async def test_close_sends_queued_messages() -> None:
    async with FakeNode("B").start() as node, relay_to(node.settings) as relay:
        for number in range(1000):
            relay.forward(message(str(number)))
        assert await relay.close(5) == 0
        assert len(node.messages) == 1000


async def test_close_does_not_wait_for_an_unreachable_peer(caplog: pytest.LogCaptureFixture) -> None:
    bounds = PeerOptions(min_backoff=30, max_backoff=30)
    async with started("C") as [node], relay_to(NOBODY, node.settings, options=bounds) as relay:
        await eventually(lambda: relay.status()[0]["state"] == "down")
        relay.forward(message("1"))
        relay.forward(message("2"))
        assert await asyncio.wait_for(relay.close(20), 10) == 2
        assert len(node.messages) == 2
    assert "2 messages were not sent before the stop" in caplog.text


async def test_close_retries_an_unreachable_peer_once() -> None:
    node = FakeNode("B").start()
    await node.stop()
    async with node, relay_to(node.settings, options=PeerOptions(min_backoff=30, max_backoff=30)) as relay:
        await eventually(lambda: relay.status()[0]["state"] == "down")
        relay.forward(message("1"))
        node.start()
        assert await relay.close(5) == 0
        assert node.texts == ["1"]


async def test_close_ends_in_time_with_a_hung_peer() -> None:
    node = FakeNode("B").start()
    node.is_hung = True
    async with node, relay_to(node.settings, options=PeerOptions()) as relay:
        relay.forward(message("1"))
        assert await asyncio.wait_for(relay.close(0.1), 4) == 1


async def test_a_relay_without_peers() -> None:
    async with relay_to() as relay:
        relay.forward(message("1"))
        assert relay.status() == []
        assert await relay.close(1) == 0


async def test_the_status_of_a_peer() -> None:
    async with (
        FakeNode("B").start() as node,
        relay_to(node.settings, NOBODY) as relay,
    ):
        relay.forward(message("1"))
        await eventually(lambda: relay.status()[0]["sent"] == 1 and relay.status()[1]["state"] == "down")
        up, down = relay.status()
        assert up == {
            "host": HOST,
            "port": node.port,
            "protocol": "http",
            "state": "up",
            "fingerprint": "B",
            "queued": 0,
            "sent": 1,
            "posts": 1,
            "dropped": 0,
            "last_error": None,
            "last_error_code": None,
            "down_for": None,
        }
        assert down["last_error_code"] == "peer_unreachable"
        assert down["queued"] == 1
        assert isinstance(down["down_for"], float)


async def test_a_node_that_requests_the_status_is_retried_immediately() -> None:
    node = FakeNode("B").start()
    await node.stop()
    async with node, relay_to(node.settings, options=PeerOptions(min_backoff=30, max_backoff=30)) as relay:
        await node.stop()
        await eventually(lambda: relay.status()[0]["state"] == "down")
        relay.forward(message("1"))
        node.start()
        relay.on_peer_announced("B")
        await node.got(1)


async def test_a_node_sends_its_fingerprint() -> None:
    names = []
    async with FakeNode("B").start() as node:
        node.respond = lambda request: names.append(request.headers["X-Aphlict-Node"])
        async with relay_to(node.settings):
            await eventually(lambda: names == [OWN])
