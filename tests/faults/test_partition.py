"""A partition of three nodes that is shorter than the history: no message is lost."""

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.faults.network import Network, network
from tests.support.browsing import ask
from tests.support.installation import PROJECT
from tests.support.waiting import wait_until

CLIENT, ADMIN = 22280, 22281
HOSTS = (1, 2, 3)
APART = 8.0  # seconds: longer than a node waits for an answer, so that it has given up on its connections
TOGETHER = (
    30.0  # seconds for the last message after the link was restored: a node tries every 10 s at the latest
)

pytestmark = pytest.mark.timeout(150)


class Node:
    """A server on a host, and a client beside it."""

    def __init__(self, network: Network, host: int) -> None:
        self.network, self.host = network, host
        self.browser: ClientConnection | None = None

    def publish(self, name: str) -> None:
        """Publish a message here; it has to be acknowledged."""
        with contextlib.closing(http.client.HTTPConnection(self.network.address(self.host), ADMIN)) as client:
            client.sock = self.network.connect(self.host, ADMIN)
            client.request("POST", "/", json.dumps({"subscribers": ["a"], "uniqueID": name}))
            answer = client.getresponse()
            assert (answer.status, json.load(answer)["matched"]) == (200, 1)

    def status(self) -> Any:
        """The status; None if the server does not respond."""
        try:
            with contextlib.closing(
                http.client.HTTPConnection(self.network.address(self.host), ADMIN)
            ) as client:
                client.sock = self.network.connect(self.host, ADMIN)
                client.request("GET", "/status/")
                return json.load(client.getresponse())
        except OSError:
            return None

    def peers_up(self) -> int:
        """The number of peers that it reaches."""
        status = self.status() or {"peers": []}
        return sum(peer["state"] == "up" for peer in status["peers"])

    def wait_for_peers(self) -> None:
        """Wait until it reaches the others."""
        wait_until(lambda: self.peers_up() == len(HOSTS) - 1, f"node {self.host} to reach the others", 20)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Connect the client."""
        address = f"ws://{self.network.address(self.host)}:{CLIENT}/"
        with connect(address, sock=self.network.connect(self.host, CLIENT), ping_interval=None) as browser:
            ask(browser, "subscribe", ["a"])
            self.browser = browser
            yield

    def heard(self, count: int, timeout: float) -> list[str]:
        """Receive messages, as many as arrive in time."""
        assert self.browser is not None
        names: list[str] = []
        deadline = time.monotonic() + timeout
        with contextlib.suppress(TimeoutError):
            while len(names) < count:
                text = self.browser.recv(timeout=max(0.0, deadline - time.monotonic()))
                names.append(json.loads(text)["uniqueID"])
        return names


def configuration(folder: Path, network: Network, host: int) -> Path:
    """Write the configuration of a node; each lists all."""
    content = {
        "servers": [
            {"type": "client", "port": CLIENT, "listen": network.address(host)},
            {"type": "admin", "port": ADMIN, "listen": network.address(host)},
        ],
        "cluster": [{"host": network.address(each), "port": ADMIN} for each in HOSTS],
        "logs": [{"path": str(folder / f"{host}.log")}],
        "pidfile": str(folder / f"{host}.pid"),
        "drain.time": 0.1,
    }
    path = folder / f"{host}.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    """Three nodes that know each other, each with a client."""
    with network(len(HOSTS)) as made, contextlib.ExitStack() as stack:
        nodes = [Node(made, host) for host in HOSTS]
        for host in HOSTS:
            config = configuration(tmp_path, made, host)
            command = [sys.executable, "-m", "aphlict", "start", "--foreground", "--config", str(config)]
            process = stack.enter_context(
                subprocess.Popen(
                    made.words(host, *command),
                    cwd=PROJECT,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            stack.callback(process.terminate)
        for node in nodes:
            node.wait_for_peers()
            stack.enter_context(node.listening())
        yield nodes


def test_nothing_is_lost_while_a_node_is_cut_off(nodes: list[Node]) -> None:
    network = nodes[0].network
    sent: list[str] = []

    def publish_everywhere(what: str) -> None:
        for number in range(10):
            for node in nodes:
                sent.append(f"{what} {number} at {node.host}")
                node.publish(sent[-1])

    publish_everywhere("before")
    network.cut(3)
    began = time.monotonic()
    publish_everywhere("apart")
    wait_until(lambda: time.monotonic() - began > APART, timeout=APART + 5)
    publish_everywhere("still apart")
    assert nodes[0].peers_up() == 1
    network.restore(3)
    publish_everywhere("together")
    for node in nodes:
        heard = node.heard(len(sent), TOGETHER)
        assert sorted(heard) == sorted(sent), f"at {node.host}: each once, none missing"
        assert node.heard(1, 0.5) == []
        for origin in HOSTS:
            mine = [name for name in heard if name.endswith(f"at {origin}")]
            assert mine == [name for name in sent if name.endswith(f"at {origin}")], "in order"
