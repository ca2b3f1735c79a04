"""Nodes of a cluster as processes, which can be killed and started again."""

import contextlib
import http.client
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection

from tests.support import browsing
from tests.support.installation import Installation, installed
from tests.support.waiting import wait_until


def peers(node: Installation) -> list[dict[str, Any]]:
    """What the node's status says of each peer."""
    found: list[dict[str, Any]] = node.status()["peers"]
    return found


def publish(node: Installation, numbers: range) -> None:
    """Publish messages with these numbers, one after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", node.admin_port, timeout=5)
    with contextlib.closing(connection):
        for number in numbers:
            connection.request("POST", "/", json.dumps({"subscribers": ["demo"], "n": number}))
            response = connection.getresponse()
            body = response.read()
            assert response.status == http.HTTPStatus.OK, body
            assert "duplicate" not in json.loads(body)


def listening_to(node: Installation) -> AbstractContextManager[ClientConnection]:
    """Connect a client that has subscribed to the channel of all messages."""
    return browsing.listening_to(node.client_port, "demo")


def receive(client: ClientConnection, count: int) -> list[int]:
    """Receive messages, and return their numbers."""
    return [message["n"] for message in browsing.receive(client, count)]


def history(node: Installation) -> list[int]:
    """Return the numbers of the messages that the node replays."""
    with listening_to(node) as client:
        client.send(json.dumps({"command": "replay", "id": 2}))
        return list(iter(lambda: browsing.receive(client, 1)[0].get("n", -1), -1))


@contextmanager
def mesh(folder: Path, count: int) -> Iterator[list[Installation]]:
    """Run nodes that are all started at the same time, and of which each lists all, itself too."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(installed(folder / f"node{number}")) for number in range(count)]
        cluster = [{"host": "127.0.0.1", "port": node.admin_port} for node in nodes]
        for node in nodes:
            node.write(cluster=cluster, drain_time=0)
        for command in [stack.enter_context(node.begin("start")) for node in nodes]:
            _, errors = command.communicate(timeout=30)
            assert command.returncode == 0, errors
        yield nodes


def wait_for_mesh(nodes: Sequence[Installation]) -> None:
    """Wait until each node knows each other node, and itself."""
    expected = sorted(["self", *["up"] * (len(nodes) - 1)])
    for node in nodes:
        wait_until(
            lambda node=node: sorted(peer["state"] for peer in peers(node)) == expected,  # type: ignore[misc]
            "a node that knows the others",
        )
