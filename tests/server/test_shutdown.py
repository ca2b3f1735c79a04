"""Graceful and immediate shutdown."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection

from aphlict.node import Node
from aphlict.server.client_port import NodeState
from tests.support.curl import curl, event_source
from tests.support.nodes import RunningNode, listening, running_node, subscribed
from tests.support.waiting import eventually


@asynccontextmanager
async def delayed(node: RunningNode) -> AsyncIterator[None]:
    """Run a node's `drain.delay` for as long as the block lasts; then it closes its connections."""
    begun = asyncio.create_task(node.node.drain())
    await eventually(lambda: node.node.state is NodeState.STOPPING)
    yield
    assert not begun.done()
    begun.cancel()
    node.node.settings = msgspec.structs.replace(node.node.settings, drain_delay=0.0)
    await node.node.drain()


async def test_status_is_503_and_clients_stay_connected_during_the_delay() -> None:
    async with running_node(drain__delay=600) as node:
        assert await node.ask("/ws/status", port=node.client_port) == (200, {"state": "RUNNING"})
        browser = await subscribed(node.url(), "a")
        async with delayed(node):
            assert await node.ask("/ws/status", port=node.client_port) == (503, {"state": "STOPPING"})
            assert (await node.publish({"subscribers": ["a"]}))["matched"] == 1
            await browser.recv()
        await browser.wait_closed()
        assert browser.close_code == 1001


async def test_the_delay_ends() -> None:
    async with running_node(drain__delay=0.3) as node:
        browser = await subscribed(node.url(), "a")
        started = time.monotonic()
        await node.node.drain()
        assert time.monotonic() - started > 0.3
        await browser.wait_closed()


async def test_clients_are_closed_with_1001_spread_over_the_drain_time() -> None:
    async with running_node(drain__time=0.6) as node:
        browsers = [await subscribed(node.url(), "a") for _ in range(30)]
        started = time.monotonic()

        async def ended(browser: ClientConnection) -> float:
            await browser.wait_closed()
            return time.monotonic() - started

        ends = [asyncio.create_task(ended(browser)) for browser in browsers]
        await node.node.drain()
        times = sorted(await asyncio.gather(*ends))
        assert {browser.close_code for browser in browsers} == {1001}
        assert 0.4 < times[-1] - times[0] < 4
        assert all(later - sooner > 0.05 for sooner, later in zip(times, times[10:], strict=False)), times


async def test_no_new_connections_while_draining() -> None:
    async with running_node() as node:
        await node.node.drain()
        for port in (node.client_port, node.admin_port):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)


async def test_queued_messages_to_peers_are_flushed() -> None:
    peer_sockets = (listening(), listening())
    address = {"host": "127.0.0.1", "port": peer_sockets[1].getsockname()[1]}
    async with running_node(sockets=peer_sockets) as peer, running_node(cluster=[address]) as node:
        await node.publish(*({"subscribers": ["a"], "n": n} for n in range(500)))
        await node.node.drain()
        assert (await peer.status())["messages.in"] == 500


async def test_an_abort_closes_everything_immediately() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        node.node.abort()
        await browser.wait_closed()
        assert browser.close_code == 1001


async def test_status_reports_a_broken_listener() -> None:
    sockets = (listening(), listening())
    async with running_node(sockets=sockets) as node:
        assert (await node.status())["state"] == "RUNNING"
        sockets[0].shutdown(socket.SHUT_RDWR)
        await eventually(lambda: node.node.state is NodeState.ERROR)
        assert (await node.status())["state"] == "ERROR"


async def test_a_node_that_has_not_started_is_starting() -> None:
    async with running_node() as node:
        other = Node(node.node.settings, [], [])
        assert other.state is NodeState.STARTING


async def test_streams_and_polls_are_served_during_the_delay() -> None:
    async with running_node(drain__delay=600) as node, AsyncExitStack() as stack:
        async with delayed(node):
            status = await curl(f"http://localhost:{node.client_port}/ws/status", "-I")
            assert status.status == 503
            assert status.body == b""
            answer = await curl(f"http://localhost:{node.client_port}/poll?channel=a&wait=0")
            assert answer.status == 200
            events = f"http://localhost:{node.client_port}/events?channel=a"
            source = await stack.enter_async_context(event_source(events))
            await node.publish({"subscribers": ["a"], "uniqueID": "one"})
            assert (await source.event()).json["uniqueID"] == "one"
        await source.end()
