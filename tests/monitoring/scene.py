"""Servers that are healthy, and one for each kind of fault, watched by one Prometheus."""

import json
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from resource import RLIMIT_NOFILE, prlimit

import psutil
import pytest

from tests.monitoring.prometheus import Prometheus, prometheus
from tests.support import frames
from tests.support.browsing import listening_to, order
from tests.support.certificates import self_signed
from tests.support.installation import Installation, installed
from tests.support.waiting import wait_until

HEALTHY = ("first", "second")
WORKERS = 2
QUEUE = 4096  # messages that wait for a peer at most
BATCH = 1024
CROWD = 12  # clients: more than 10, which may be dropped without an alert
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Scene:
    """The servers by name, and Prometheus."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.servers: dict[str, Installation] = {}
        self._add_all()
        self._start_all()
        self.prometheus: Prometheus = stack.enter_context(
            prometheus(
                [self.target(name) for name in self.servers if name != "hung edge"],
                slow_targets=[self.target("hung edge")],
            )
        )
        self._stack.enter_context(self._traffic())
        wait_until(
            lambda: len(self.prometheus.query('up{job="aphlict"} == 1')) == len(self.servers),
            "scrapes of all",
            timeout=30,
        )

    def target(self, name: str) -> str:
        """Return the label `instance` of a server."""
        return f"127.0.0.1:{self.servers[name].admin_port}"

    def _add(self, name: str, **changes: object) -> None:
        server = self._stack.enter_context(installed(self._folder / name.replace(" ", "-")))
        server.write(**changes)
        self.servers[name] = server

    def _add_all(self) -> None:
        for name in ("gone", "restarting", "troubled"):
            self._add(name)
        self._add("slow clients", send_buffer=4096)
        self._add("draining", **{"drain.delay": 120})
        self._add("full", connections=CROWD)
        self._add("hung edge", workers=WORKERS)
        self._add("lagging", client=self._certificate("lagging", days=5))
        for pair in (HEALTHY, ("sender", "receiver")):
            for name in pair:
                self._add(name)
            cluster = [{"host": "127.0.0.1", "port": self.servers[name].admin_port} for name in pair]
            self.servers[pair[0]].write(cluster=cluster, workers=WORKERS if pair is HEALTHY else 1)
            self.servers[pair[1]].write(cluster=cluster, client=self._certificate(pair[1], days=90))

    def _certificate(self, name: str, days: float) -> dict[str, str | None]:
        return self_signed(days=days).write(self._folder / f"certificate of {name}").settings()

    def _start_all(self) -> None:
        for command in [self._stack.enter_context(each.begin("start")) for each in self.servers.values()]:
            _, errors = command.communicate(timeout=60)
            assert command.returncode == 0, errors
        for server in self.servers.values():
            wait_until(server.answers, "a server that responds")
        for name in (*HEALTHY, "sender", "receiver"):
            wait_until(lambda name=name: self._knows_its_peer(name), f"the peer of {name}")  # type: ignore[misc]

    def _knows_its_peer(self, name: str) -> bool:
        return {peer["state"] for peer in self.servers[name].status()["peers"]} == {"self", "up"}

    @contextmanager
    def _traffic(self) -> Iterator[None]:
        """Publish to a client of the first node, which resumes now and then."""
        first = self.servers["first"]
        with listening_to(first.client_port, "a") as client:

            def publish() -> None:
                receipt = first.publish("a")
                while "uniqueID" not in (message := json.loads(client.recv(timeout=20))):
                    pass
                assert message["uniqueID"] == receipt["uniqueID"]
                client.send(json.dumps({"command": "replay", "data": {"after": receipt["uniqueID"]}}))

            with repeating(publish, 0.2):
                yield


@contextmanager
def repeating(action: Callable[[], None], pause: float) -> Iterator[None]:
    """Call a function again and again during the block, `pause` seconds after each return."""
    is_over, failures = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            while not is_over.wait(pause):
                action()
        except BaseException as error:  # noqa: BLE001 -- raised below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert not failures, failures


class Faults:
    """Does to each server what its alert is about."""

    def __init__(self, scene: Scene, stack: ExitStack) -> None:
        self._servers = scene.servers
        self._prometheus = scene.prometheus
        self._scene = scene
        self._stack = stack

    def cause_all(self) -> None:
        """Cause all faults. Those that have to last do so until the end of the stack."""
        self._stack.enter_context(repeating(self._freeze, 0.1))
        self._stack.enter_context(self._gaps())
        self._servers["draining"].supervisor().send_signal(signal.SIGTERM)
        self._servers["gone"].kill()
        self._hang_an_edge()
        self._fill()
        self._exhaust_descriptors()
        with self._hung_peer():
            self._refuse()
            self._drop_slow_clients()
            self._restart()

    def _freeze(self) -> None:
        """Let the event loop wait for most of the time."""
        worker = self._servers["lagging"].supervisor().children()[0]
        worker.suspend()
        threading.Event().wait(0.4)
        worker.resume()

    @contextmanager
    def _gaps(self) -> Iterator[None]:
        """Resume again and again after a message that nobody knows."""
        with listening_to(self._servers["troubled"].client_port, "a") as client:

            def resume() -> None:
                assert order(client, "replay", {"after": "unknown"})["recovered"] is False

            with repeating(resume, 0.2):
                yield

    def _hang_an_edge(self) -> None:
        server = self._servers["hung edge"]
        edges = wait_until(lambda: server.status()["workers"], "edges")
        edge = psutil.Process(edges[0]["pid"])
        edge.suspend()
        self._stack.callback(edge.resume)

    def _fill(self) -> None:
        for _ in range(CROWD):
            self._stack.enter_context(listening_to(self._servers["full"].client_port, "a"))

    def _exhaust_descriptors(self) -> None:
        worker = self._servers["full"].worker()
        limit = worker.num_fds() + 1
        prlimit(worker.pid, RLIMIT_NOFILE, (limit, limit))

    @contextmanager
    def _hung_peer(self) -> Iterator[None]:
        """Freeze a node until the other one has given up messages for it."""
        sender, receiver = self._servers["sender"], self._servers["receiver"]
        target, worker = self._scene.target("sender"), receiver.worker()
        sender.publish("a")
        wait_until(lambda: receiver.status()["history.size"], "a message before the fault")
        worker.suspend()
        try:
            for _ in range(QUEUE // BATCH + 2):
                assert sender.post([{"subscribers": ["a"]}] * BATCH)[0] == 200
            yield
            wait_until(
                lambda: self._prometheus.has_fired("AphlictPeerDown", target), "AphlictPeerDown", timeout=30
            )
        finally:
            worker.resume()

    def _refuse(self) -> None:
        server = self._servers["troubled"]
        for _ in range(10):
            assert server.post({"subscribers": "a"})[0] == 400
        page = urllib.request.Request(
            f"http://127.0.0.1:{server.admin_port}/", b"{}", {"Origin": "https://evil.example"}
        )
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(page, timeout=10)

    def _drop_slow_clients(self) -> None:
        server = self._servers["slow clients"]
        subscribe = frames.text(json.dumps({"command": "subscribe", "data": ["a"]}))
        for _ in range(CROWD):
            client = self._stack.enter_context(socket.create_connection(("127.0.0.1", server.client_port)))
            client.sendall(UPGRADE + subscribe)
        wait_until(lambda: server.publish("a")["matched"] == CROWD, "subscriptions")
        while server.connections:
            server.publish("a", text="x" * 500_000)

    def _restart(self) -> None:
        """Kill the worker several times, and let Prometheus see each."""
        server, target = self._servers["restarting"], self._scene.target("restarting")
        changes = f'changes(process_start_time_seconds{{instance="{target}"}}[1h])'
        for count in range(1, 4):
            server.worker().kill()
            wait_until(
                lambda count=count: self._prometheus.query(changes)[0].value >= count,  # type: ignore[misc]
                "a restart that Prometheus has seen",
                timeout=30,
            )
