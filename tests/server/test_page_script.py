"""The page script of the Node.js server, replayed frame by frame."""

import asyncio
import json
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.support.nodes import running_node

RECONNECT_DELAY = (
    0.1  # seconds that the script leaves its other tabs to subscribe before it requests a replay
)
SUBSCRIBE = '{"command":"subscribe","data":["PHID-USER-1","PHID-TASK-2"]}'
REPLAY = '{"command":"replay","data":{"age":60000}}'
PING = '{"command":"ping","data":null}'


async def receive(page: ClientConnection) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(await asyncio.wait_for(page.recv(), 5))
    return frame


async def is_silent(page: ClientConnection) -> bool:
    """Return whether the server has sent nothing that was not read: the pong to a ping follows all of it."""
    await page.send(PING)
    return await receive(page) == {"type": "pong"}


async def test_a_page_that_loses_its_connection_misses_nothing() -> None:
    async with running_node() as node:
        async with connect(node.url()) as page:
            await page.send(SUBSCRIBE)
            assert await is_silent(page), "a command without id is not answered"
            await node.publish({"type": "notification", "key": "1", "subscribers": ["PHID-USER-1", "x"]})
            first = await receive(page)
            assert first.pop("uniqueID")
            assert first == {"type": "notification", "key": "1", "subscribers": ["PHID-USER-1"]}
        await node.publish({"type": "notification", "key": "2", "subscribers": ["PHID-TASK-2"]})
        await node.publish({"type": "notification", "key": "x", "subscribers": ["x"]})
        async with connect(node.url()) as page:
            await page.send(SUBSCRIBE)
            await asyncio.sleep(RECONNECT_DELAY)
            await page.send(REPLAY)
            assert [(await receive(page))["key"] for _ in range(2)] == ["1", "2"]
            assert await is_silent(page), "a replay is not answered"
            await node.publish({"key": "3", "subscribers": ["PHID-USER-1"]})
            assert (await receive(page))["key"] == "3"


async def test_a_ping_every_15_seconds_is_answered_each_time() -> None:
    async with running_node() as node, connect(node.url()) as page:
        await page.send(SUBSCRIBE)
        for _ in range(4):
            await page.send(PING)
            assert await receive(page) == {"type": "pong"}


async def test_a_page_that_navigates_unsubscribes() -> None:
    async with running_node() as node, connect(node.url()) as page:
        await page.send(SUBSCRIBE)
        await page.send('{"command":"unsubscribe","data":["PHID-TASK-2"]}')
        assert await is_silent(page)
        await node.publish({"key": "1", "subscribers": ["PHID-TASK-2"]})
        await node.publish({"key": "2", "subscribers": ["PHID-USER-1"]})
        assert (await receive(page))["key"] == "2"
