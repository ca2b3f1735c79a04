"""A real server, in a process of its own, on ports that it keeps when it starts again."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support.ports import free_ports
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


class Server:
    """A server on loopback, `client` are more keys of its client server; `url` is where browsers connect."""

    def __init__(self, folder: Path, client: Mapping[str, object] = {}, **settings: object) -> None:
        self.client_port, self.admin_port = free_ports(2)
        self._folder = folder
        servers = [
            {"type": "client", "port": self.client_port, "listen": "127.0.0.1", **client},
            {"type": "admin", "port": self.admin_port},
        ]
        self._config = folder / "aphlict.json"
        config = {"servers": servers, "pidfile": str(folder / "pid"), "drain.time": 0.1, **settings}
        self._config.write_text(json.dumps(config))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where browsers connect."""
        return f"ws://127.0.0.1:{self.client_port}/ws/"

    def start(self) -> "Server":
        """Start it, and wait until it serves."""
        command = [sys.executable, "-m", "aphlict", "debug", "--config", str(self._config)]
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        wait_until(self._serves, "the server")
        return self

    def _serves(self) -> bool:
        assert self._process
        assert self._process.poll() is None, (self._folder / "output").read_text()
        try:
            self.status()
        except urllib.error.URLError:
            return False
        return True

    def stop(self, signal: signal.Signals = signal.SIGTERM) -> None:
        """Stop it: in good order, or with another signal."""
        if self._process is not None:
            self._process.send_signal(signal)
            self._process.wait(10)
            self._process = None

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not stopped."""
        return self._process is not None

    def status(self) -> dict[str, Any]:
        """The response of the status page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/status/") as answer:
            status: dict[str, Any] = json.load(answer)
            return status

    @property
    def connections(self) -> int:
        """How many browsers are connected."""
        return int(self.status()["clients.active"])

    def publish(self, *channels: str, instance: str = "default", **fields: object) -> dict[str, Any]:
        """Publish a message; gives the receipt."""
        body = json.dumps({"subscribers": channels, **fields}).encode()
        where = f"http://127.0.0.1:{self.admin_port}/?instance={quote(instance, safe='')}"
        request = urllib.request.Request(where, body)
        with urllib.request.urlopen(request) as answer:
            receipt: dict[str, Any] = json.load(answer)
            return receipt


@contextmanager
def running_server(folder: Path, client: Mapping[str, object] = {}, **settings: object) -> Iterator[Server]:
    """A server while the block lasts."""
    server = Server(folder, client, **settings).start()
    try:
        yield server
    finally:
        server.stop()


class Servers:
    """Servers that one test after the other uses: to start one takes longer than most of the tests."""

    def __init__(self, new_folder: Callable[[], Path]) -> None:
        self._new_folder = new_folder
        self._idle: dict[str, list[Server]] = {}

    @contextmanager
    def lend(self, client: Mapping[str, object] = {}, **settings: object) -> Iterator[Server]:
        """A server without clients, while the block lasts. Its totals and its history may not be empty."""
        idle = self._idle.setdefault(json.dumps([client, settings]), [])
        server = self._unused(idle) or Server(self._new_folder(), client, **settings).start()
        try:
            yield server
        except BaseException:
            server.stop()
            raise
        if server.is_running:
            idle.append(server)

    def _unused(self, idle: list[Server]) -> Server | None:
        """A server that the clients of the last test have left."""
        while idle:
            server = idle.pop()
            with suppress(AssertionError):
                wait_until(lambda server=server: not server.connections, "the last clients to leave", 2)  # type: ignore[misc]
                return server
            server.stop()
        return None

    def close(self) -> None:
        """Stop them."""
        for server in [each for idle in self._idle.values() for each in idle]:
            server.stop()
