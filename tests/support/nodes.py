"""Nodes in the process and the event loop of the test, on free ports."""

import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from websockets.asyncio.client import ClientConnection, connect

from aphlict.config.loader import from_keys
from aphlict.node import Node, ports_of
from aphlict.server.auth import load_credentials
from tests.support.waiting import eventually


def listening(port: int = 0) -> socket.socket:
    """A listening socket on the loopback address; port 0 is any free one."""
    sock = socket.create_server(("127.0.0.1", port), backlog=1024)
    sock.setblocking(False)
    return sock


class RunningNode:
    """A node that runs, and requests to its ports."""

    def __init__(self, node: Node, client_port: int, admin_port: int, *, tls: bool) -> None:
        self.node = node
        self.client_port = client_port
        self.admin_port = admin_port
        self.tls = tls

    def url(self, path: str = "/ws/") -> str:
        """The URL for WebSockets."""
        return f"{'wss' if self.tls else 'ws'}://localhost:{self.client_port}{path}"

    async def ask(self, path: str, *, port: int | None = None, **request: Any) -> tuple[int, Any]:
        """Send a request to the admin port or another; return the HTTP status and the JSON of the response."""
        url = f"http://127.0.0.1:{port or self.admin_port}{path}"
        answer = await AsyncHTTPClient().fetch(
            HTTPRequest(url, allow_nonstandard_methods=True, follow_redirects=False, **request),
            raise_error=False,
        )
        return answer.code, json.loads(answer.body) if answer.body else None

    async def publish(self, *messages: dict[str, Any], instance: str | None = None) -> dict[str, Any]:
        """Publish an object, or several as a list; return the receipt."""
        path = "/" if instance is None else f"/?instance={instance}"
        body = json.dumps(messages[0] if len(messages) == 1 else messages)
        status, receipt = await self.ask(path, method="POST", body=body)
        assert status == 200, receipt
        assert isinstance(receipt, dict)
        return receipt

    async def status(self, instance: str = "default") -> dict[str, Any]:
        """The status of an instance."""
        _, status = await self.ask(f"/status/?instance={instance}")
        assert isinstance(status, dict)
        return status


@asynccontextmanager
async def running_node(
    *,
    client: dict[str, Any] | None = None,
    admin: dict[str, Any] | None = None,
    sockets: tuple[socket.socket, socket.socket] | None = None,
    **keys: Any,
) -> AsyncIterator[RunningNode]:
    """Run a node with these configuration keys (dots as `__`): `client` and `admin` are those of its two servers."""
    client_socket, admin_socket = sockets or (listening(), listening())
    ports = client_socket.getsockname()[1], admin_socket.getsockname()[1]
    raw = {
        "servers": [
            {"type": "client", "port": ports[0], **(client or {})},
            {"type": "admin", "port": ports[1], **(admin or {})},
        ],
        "pidfile": str(Path("/nowhere/pid")),
        "drain.time": 0,
        **{name.replace("__", "."): value for name, value in keys.items()},
    }
    settings = from_keys(raw)
    credentials = [load_credentials(server) for server in settings.servers]
    node = Node(settings, ports_of(settings, [[client_socket], [admin_socket]]), credentials)
    await node.start()
    try:
        yield RunningNode(node, *ports, tls=credentials[0].tls is not None)
    finally:
        await node.drain()


@asynccontextmanager
async def running_cluster(count: int, *others: int, **keys: Any) -> AsyncIterator[list[RunningNode]]:
    """Run nodes that list each other, themselves, and the `others`: admin ports on this machine.

    Each of them has heard all others when this returns.
    """
    sockets = [(listening(), listening()) for _ in range(count)]
    admins = [admin.getsockname()[1] for _, admin in sockets]
    cluster = [{"host": "127.0.0.1", "port": port} for port in (*admins, *others)]
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(running_node(cluster=cluster, sockets=pair, **keys))
            for pair in sockets
        ]
        await eventually(lambda: all(map(knows_all, nodes)), "nodes that know each other")
        yield nodes


def knows_all(node: RunningNode) -> bool:
    """Whether a node has heard all its peers."""
    return node.node.hub.origins.is_complete


async def has_all(nodes: Sequence[RunningNode], count: int) -> bool:
    """Whether each of the nodes keeps so many messages."""
    return {(await node.status())["history.size"] for node in nodes} == {count}


async def subscribed(url: str, *channels: str) -> ClientConnection:
    """Connect a client (of another implementation), and subscribe."""
    browser = await connect(url)
    await command(browser, "subscribe", list(channels))
    return browser


async def command(browser: ClientConnection, name: str, data: Any = None) -> dict[str, Any]:
    """Send a command, and return the `ack` or `error`, which has to be the next frame."""
    await browser.send(json.dumps({"command": name, "data": data, "id": name}))
    answer = json.loads(await browser.recv())
    assert answer["type"] in ("ack", "error")
    assert answer["id"] == name
    assert isinstance(answer, dict)
    return answer


async def receive(browser: ClientConnection, count: int) -> list[dict[str, Any]]:
    """Receive messages."""
    return [json.loads(await browser.recv()) for _ in range(count)]
