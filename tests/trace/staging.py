"""Requests for traces, and clients that fail in the way that a test wants."""

import asyncio
import json
import socket
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection

from tests.support.frames import text
from tests.support.heads import head
from tests.support.nodes import RunningNode
from tests.support.waiting import eventually

LARGE = "x" * 65_536


async def trace(node: RunningNode, unique_id: str = "", **query: str) -> dict[str, Any]:
    """Ask a node."""
    fields = {"id": unique_id, **query} if unique_id else query
    status, answer = await node.ask(f"/trace?{urlencode(fields)}")
    assert status == 200, answer
    assert isinstance(answer, dict)
    return answer


def clients(answer: dict[str, Any], place: int = 0) -> dict[str, int]:
    """The number of clients by code, at one of the nodes."""
    [message] = answer["nodes"][place]["messages"]
    assert isinstance(message["clients"], dict)
    return message["clients"]


def connection(answer: dict[str, Any], place: int = 0) -> dict[str, Any]:
    """The only connection that one of the nodes lists; the sentence about it has its code."""
    [found] = answer["nodes"][place]["connections"]
    assert isinstance(found, dict)
    assert sum(f"[{found['code']}]." in line for line in answer["text"]) >= 1
    return found


async def left(node: RunningNode, *browsers: ClientConnection) -> None:
    """Close clients, and wait until the node has noticed."""
    before = node.node.hub.connections
    for browser in browsers:
        await browser.close()
    await eventually(lambda: node.node.hub.connections == before - len(browsers), "the end of the clients")


class SlowClient:
    """A client that has subscribed, has a small buffer, and reads nothing."""

    def __init__(self, node: RunningNode, target: str = "/ws/") -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.socket.settimeout(10)
        self._node = node
        self._target = target

    async def subscribe(self, channel: str) -> "SlowClient":
        """Connect, by WebSocket or to an event stream."""
        node, hub = self._node, self._node.node.hub
        if self._target == "/ws/":
            data = head() + text(json.dumps({"command": "subscribe", "data": [channel]}))
        else:
            separator = "&" if "?" in self._target else "?"
            data = (
                f"GET {self._target}{separator}channel={channel} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
        before = hub.connections
        await asyncio.to_thread(self.socket.connect, ("127.0.0.1", node.client_port))
        await asyncio.to_thread(self.socket.sendall, data)
        await eventually(
            lambda: hub.connections > before and hub.instance("default").index.match([channel]),
            "the subscription",
        )
        return self

    async def fill(self, channel: str) -> int:
        """Publish until a message waits; return their number: their uniqueIDs are m0, m1, …"""
        context, number = self._node.node.server.context, 0
        while not context.buffer_budget.used:
            await self._node.publish({"subscribers": [channel], "uniqueID": f"m{number}", "text": LARGE})
            number += 1
            assert number < 200
        return number

    async def overflow(self, channel: str) -> list[str]:
        """Publish until the client is dropped; return the uniqueIDs."""
        hub, names = self._node.node.hub, list[str]()
        while hub.connections:
            names.append(f"m{len(names)}")
            await self._node.publish({"subscribers": [channel], "uniqueID": names[-1], "text": LARGE})
            assert len(names) < 200
        return names

    def close(self) -> None:
        """Close it."""
        self.socket.close()
