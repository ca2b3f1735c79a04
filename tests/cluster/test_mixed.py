"""Nodes of this project and a Node.js server in one cluster."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.cluster.nodes import HOST, NodeJsServer
from tests.support.nodes import RunningNode, listening, receive, running_node, subscribed
from tests.support.waiting import eventually, eventually_async


@asynccontextmanager
async def mixed_cluster(
    count: int,
) -> AsyncIterator[tuple[list[RunningNode], NodeJsServer]]:
    """Run nodes and one Node.js server, each with all others as peers."""
    other = NodeJsServer("nodejs0000000000").start()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(other)
        sockets = [(listening(), listening()) for _ in range(count)]
        admins = [admin.getsockname()[1] for _, admin in sockets]
        cluster = [{"host": HOST, "port": port} for port in (*admins, other.port)]
        nodes = [
            await stack.enter_async_context(running_node(cluster=cluster, sockets=pair)) for pair in sockets
        ]
        other.join(*admins, other.port)
        await eventually_async(lambda: is_joined(nodes))
        yield nodes, other


async def is_joined(nodes: Sequence[RunningNode]) -> bool:
    statuses = [await node.status() for node in nodes]
    return all(peer["state"] in ("up", "self") for status in statuses for peer in status["peers"])


async def is_introduced(nodes: Sequence[RunningNode]) -> bool:
    """Whether all know the names of all, and nothing is on its way."""
    statuses = [await node.status() for node in nodes]
    return all(peer["fingerprint"] and not peer["queued"] for status in statuses for peer in status["peers"])


async def test_a_message_reaches_the_node_js_server_once() -> None:
    async with mixed_cluster(2) as (nodes, other):
        await nodes[0].publish({"subscribers": ["a"], "n": 0, "uniqueID": "first"})
        await nodes[1].publish({"subscribers": ["a"], "n": 0, "uniqueID": "second"})
        await eventually_async(lambda: is_introduced(nodes))
        other.delivered.clear()
        for number in range(100):
            await nodes[number % 2].publish({"subscribers": ["a"], "n": number})
        await eventually(lambda: len(other.delivered) >= 100)
        assert Counter(each["n"] for each in other.delivered) == Counter(range(100))
        for start in range(2):
            assert [n for n in numbers(other) if n % 2 == start] == list(range(start, 100, 2))


async def test_a_message_of_the_node_js_server_reaches_each_browser_once() -> None:
    async with mixed_cluster(3) as (nodes, other):
        browsers = [await subscribed(node.url(), "a") for node in nodes]
        for number in range(50):
            await nodes[0].ask(
                "/",
                port=other.port,
                method="POST",
                body=f'{{"subscribers": ["a"], "n": {number}, "uniqueID": "u{number}"}}',
            )
        for node in nodes:
            await eventually_async(lambda node=node: has_history(node, 50))  # type: ignore[misc]
        await eventually(lambda: not other.tasks)
        await nodes[0].publish({"subscribers": ["a"], "n": 50})
        for browser in browsers:
            got = [message["n"] for message in await receive(browser, 51)]
            assert sorted(got[:50]) == list(range(50))
            assert got[50] == 50
        statuses = [await node.status() for node in nodes]
        assert sum(peer["posts"] for status in statuses for peer in status["peers"]) <= 50 * 3 * 3


async def test_a_message_of_the_node_js_server_is_forwarded_to_nodes_that_it_does_not_list() -> None:
    async with mixed_cluster(2) as (nodes, other):
        other.join(nodes[0].admin_port)
        await nodes[0].ask("/", port=other.port, method="POST", body='{"subscribers": ["a"], "n": 1}')
        await eventually_async(lambda: has_history(nodes[1], 1))
        assert len(other.delivered) == 1


async def test_a_node_js_server_that_comes_back_receives_what_it_missed() -> None:
    async with mixed_cluster(2) as (nodes, other):
        await other.stop()
        for number in range(20):
            await nodes[0].publish({"subscribers": ["a"], "n": number})
        back = NodeJsServer("nodejs1111111111")
        back.port = other.port
        async with back.start():
            await eventually(lambda: len(set(numbers(back))) == 20)
            assert sorted(set(numbers(back))) == list(range(20))


def numbers(server: NodeJsServer) -> list[int]:
    return [each["n"] for each in server.delivered]


async def has_history(node: RunningNode, size: int) -> bool:
    return bool((await node.status())["history.size"] >= size)
