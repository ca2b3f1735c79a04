"""Nodes that compare how far they are: what a node that is gone sent to only some of them reaches all."""

import asyncio
import json
import time
from collections.abc import Sequence
from math import inf

from websockets.asyncio.client import ClientConnection

from tests.cluster.nodes import FakeNode, NodeJsServer
from tests.support.nodes import (
    RunningNode,
    command,
    has_all,
    receive,
    running_cluster,
    subscribed,
)
from tests.support.numbering import FakeOrigin
from tests.support.waiting import eventually, eventually_async

MAX_AGE = 60.0  # seconds for which messages are kept


async def numbers(browser: ClientConnection, count: int) -> list[int]:
    """Return the numbers of the next messages."""
    return [message["n"] for message in await receive(browser, count)]


async def greet_all(origin: FakeOrigin, nodes: Sequence[RunningNode], after: int = 0) -> None:
    """Send each node a greeting."""
    for node in nodes:
        await origin.greet(node.admin_port, after)


def fingerprints(nodes: Sequence[RunningNode]) -> list[str]:
    """Return the fingerprints of nodes."""
    return [node.node.fingerprint for node in nodes]


def versions(nodes: Sequence[RunningNode]) -> list[dict[str, int]]:
    """Return up to which number each node has the messages of each origin."""
    return [{name: report.number for name, report in node.node.report().items()} for node in nodes]


async def know_all(nodes: Sequence[RunningNode]) -> bool:
    """Whether each node knows the fingerprints of its peers."""
    statuses = [await node.status() for node in nodes]
    return all(peer["fingerprint"] for status in statuses for peer in status["peers"])


async def resume(node: RunningNode, *after: str) -> tuple[list[int], bool]:
    """Resume on channel `a`: the numbers of the messages that a client receives, and whether these are all."""
    async with await subscribed(node.url(), "a") as browser:
        await browser.send(
            f'{{"command": "replay", "data": {{"after": {list(after)}}}, "id": 1}}'.replace("'", '"')
        )
        found = []
        while "n" in (message := (await receive(browser, 1))[0]):
            found.append(message["n"])
        return found, message["recovered"]


async def test_messages_of_a_replaced_node_reach_those_that_it_did_not_reach() -> None:
    other = FakeOrigin()
    async with running_cluster(3) as nodes:
        await greet_all(other, nodes)
        browsers = [await subscribed(node.url(), "a") for node in nodes]
        everyone = fingerprints(nodes)  # so that no node passes them on
        await other.send(nodes[0].admin_port, 1, 2, 3, touched=everyone)
        await other.send(nodes[1].admin_port, 1, touched=everyone)
        await greet_all(FakeOrigin("otherone", age=0.0), nodes)
        for browser in browsers:
            assert await numbers(browser, 3) == [1, 2, 3]
            assert (await command(browser, "subscribe", ["b"]))["type"] == "ack", "no gap, and nothing twice"


async def test_a_client_that_has_a_message_before_it_is_repaired_does_not_receive_it_again() -> None:
    other = FakeOrigin()
    async with running_cluster(2) as (first, second):
        await greet_all(other, (first, second))
        await other.send(first.admin_port, 1, 2, touched=fingerprints((first, second)))
        async with await subscribed(first.url(), "a") as browser:
            last = (await command(browser, "subscribe", ["b"]))["last"]
        roaming = await subscribed(second.url(), "a")
        answer = await command(roaming, "replay", {"after": last})
        assert (answer["count"], answer["recovered"]) == (0, True)
        await greet_all(FakeOrigin("otherone", age=0.0), (first, second))
        await eventually_async(lambda: has_all((first, second), 2), "the repair")
        await second.publish({"subscribers": ["a"], "n": 9})
        assert await numbers(roaming, 1) == [9]


async def test_a_node_that_was_cut_off_for_too_long_reports_a_gap() -> None:
    """Nobody keeps the messages any more that a node which is gone had not sent to it."""
    other = FakeOrigin()
    async with running_cluster(2) as (first, second):
        await greet_all(other, (first, second))
        browser = await subscribed(second.url(), "a")
        await other.send(first.admin_port, 1, touched=fingerprints((first, second)))
        first.node.hub.history.expire(time.monotonic() + 2 * MAX_AGE)
        await greet_all(FakeOrigin("otherone", age=0.0), (first, second))
        origin = second.node.hub.origins.get(other.origin)
        assert origin is not None
        await eventually(lambda: origin.promised == 1, "the report of the other node")
        second.node.hub.sequencer.run(time.monotonic() + MAX_AGE)
        await asyncio.wait_for(browser.wait_closed(), 10)
        assert browser.close_code == 1013


async def test_messages_of_a_node_js_server_have_no_holes() -> None:
    """It sends each message to all nodes, and each of them numbers it for the others."""
    other = NodeJsServer("nodejs0000000000").start()
    async with other, running_cluster(3, other.port) as nodes:
        other.join(*(node.admin_port for node in nodes))
        tokens = []
        for node in nodes:
            async with await subscribed(node.url(), "a") as browser:
                tokens.append((await command(browser, "subscribe", ["b"]))["last"])
        for number in range(30):
            message = {"subscribers": ["a"], "uniqueID": f"u{number}", "n": number}
            await nodes[0].ask("/", port=other.port, method="POST", body=json.dumps(message))
            await nodes[number % 3].publish({"subscribers": ["a"], "n": 100 + number})
        await eventually_async(lambda: has_all(nodes, 60), "all messages")
        await eventually(
            lambda: versions(nodes)[0] == versions(nodes)[1] == versions(nodes)[2], "all numbers"
        )
        assert [node.node.hub.origins.gap_at for node in nodes] == [-inf] * 3
        for node in nodes:
            for last in tokens:
                found, recovered = await resume(node, last)
                assert sorted(found) == [*range(30), *range(100, 130)]
                assert recovered is True


async def test_a_node_of_an_earlier_version_receives_each_message_once() -> None:
    """It reports no origins: what it receives from others is not sent to it again, by its fingerprint."""
    async with FakeNode("earlier0").start() as node, running_cluster(2, node.port) as nodes:
        await eventually_async(lambda: know_all(nodes), "nodes that know each other")
        for number in range(20):
            await nodes[number % 2].publish({"subscribers": ["a"], "text": str(number)})
        await eventually_async(lambda: has_all(nodes, 20), "all messages")
        await node.got(20)
        assert sorted(map(int, node.texts)) == list(range(20))
        assert not any("aphlict.origin" in each for each in node.messages)
