"""Nodes of a cluster as processes of their own, which can be killed and brought back."""

import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from websockets.sync.client import ClientConnection, connect

from tests.support.ports import free_ports
from tests.support.waiting import wait_until

HOST = "127.0.0.1"
SERVE = (sys.executable, "-m", "aphlict", "debug")


class NodeProcess:
    """A node with its configuration. Its ports stay the same when it is started again."""

    def __init__(self, folder: Path, client_port: int, admin_port: int, cluster: Sequence[int]) -> None:
        folder.mkdir(parents=True)
        self.client_port = client_port
        self.admin_port = admin_port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        content = {
            "servers": [
                {"type": "client", "port": client_port, "listen": HOST},
                {"type": "admin", "port": admin_port},
            ],
            "cluster": [{"host": HOST, "port": port} for port in cluster],
            "pidfile": "aphlict.pid",
            "drain.time": 0,
        }
        (folder / "aphlict.json").write_text(json.dumps(content))

    @property
    def output(self) -> str:
        """What it has said so far."""
        return (self._folder / "output").read_text()

    def start(self) -> None:
        """Start it, without waiting for it."""
        with (self._folder / "output").open("ab") as output:
            command = [*SERVE, "--config", str(self._folder / "aphlict.json")]
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, cwd=Path(__file__).parents[2], start_new_session=True
            )

    def kill(self) -> None:
        """End it with SIGKILL: what watches over it, then what serves."""
        assert self._process is not None
        worker = psutil.Process(self.status()["pid"])
        self._process.kill()
        self._process.wait(10)
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
            worker.wait(10)

    def stop(self) -> None:
        """Stop it in good order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    def ask(self, method: str, target: str, body: object = None) -> dict[str, Any]:
        """A request to its admin server."""
        connection = http.client.HTTPConnection(HOST, self.admin_port, timeout=5)
        with contextlib.closing(connection):
            connection.request(method, target, None if body is None else json.dumps(body))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer

    def status(self) -> dict[str, Any]:
        """Its status page."""
        return self.ask("GET", "/status/")

    def is_running(self) -> bool:
        """Whether it answers."""
        try:
            return bool(self.status()["state"] == "RUNNING")
        except OSError:
            return False

    def peers(self) -> list[dict[str, Any]]:
        """What it knows of each peer."""
        peers: list[dict[str, Any]] = self.status()["peers"]
        return peers

    def publish(self, messages: Sequence[dict[str, Any]]) -> None:
        """Post messages one after the other."""
        connection = http.client.HTTPConnection(HOST, self.admin_port, timeout=5)
        with contextlib.closing(connection):
            for message in messages:
                connection.request("POST", "/", json.dumps(message))
                answer = connection.getresponse()
                assert answer.status == http.HTTPStatus.OK, answer.read()
                assert "duplicate" not in json.loads(answer.read())

    @contextmanager
    def browser(self) -> Iterator[ClientConnection]:
        """A browser that listens to `demo`."""
        with connect(f"ws://{HOST}:{self.client_port}/ws/", compression=None) as browser:
            browser.send(json.dumps({"command": "subscribe", "data": ["demo"], "id": 1}))
            assert json.loads(browser.recv(5))["type"] == "ack"
            yield browser

    def history(self) -> list[int]:
        """The numbers of the messages that a browser gets replayed."""
        with self.browser() as browser:
            browser.send(json.dumps({"command": "replay", "id": 2}))
            return list(iter(lambda: json.loads(browser.recv(5)).get("n", -1), -1))


def numbered(numbers: range) -> list[dict[str, Any]]:
    """Messages with these numbers."""
    return [{"subscribers": ["demo"], "n": number} for number in numbers]


def receive(browser: ClientConnection, count: int) -> list[int]:
    """The numbers of the next messages."""
    return [json.loads(browser.recv(10))["n"] for _ in range(count)]


@contextmanager
def mesh(folder: Path, count: int) -> Iterator[list[NodeProcess]]:
    """Nodes each of which lists all, itself too. They are started and stopped here."""
    ports = free_ports(2 * count)
    clients, admins = ports[:count], ports[count:]
    nodes = [
        NodeProcess(folder / f"node{number}", clients[number], admins[number], admins)
        for number in range(count)
    ]
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            wait_until(node.is_running, "a node that runs")
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def wait_for_mesh(nodes: Sequence[NodeProcess]) -> None:
    """Wait until each knows each."""
    for node in nodes:
        wait_until(lambda node=node: is_joined(node, len(nodes)), "a node that knows the others")  # type: ignore[misc]


def is_joined(node: NodeProcess, count: int) -> bool:
    """Whether it knows itself and all others."""
    return sorted(peer["state"] for peer in node.peers()) == ["self", *["up"] * (count - 1)]
