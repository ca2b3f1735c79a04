"""A server in a process of its own: a configuration in a folder, and the commands."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from tests.support.configuration import named
from tests.support.ports import free_ports
from tests.support.waiting import wait_until

PROJECT = Path(__file__).resolve().parent.parent.parent
COMMAND = (sys.executable, "-m", "aphlict")
SECONDS = 30.0


def environment(**changes: str) -> dict[str, str]:
    """The environment of the commands."""
    return {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "error", **changes}


class Installation:
    """A configuration with free ports, a log and a pidfile, all in one folder; and what runs of it."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        """Write the configuration. `client` has keys of the client server; `drain_time=1` sets `drain.time`."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.config = folder / "aphlict.json"
        self.client_port, self.admin_port = free_ports(2)
        self.log = folder / "logs" / "aphlict.log"
        self.pidfile = folder / "run" / "aphlict.pid"
        self.write(**changes)

    def write(self, **changes: Any) -> None:
        """Write the configuration again, with these changes."""
        client: Mapping[str, object] = changes.pop("client", {})
        servers = [
            {"type": "client", "port": self.client_port, "listen": "127.0.0.1", **client},
            {"type": "admin", "port": self.admin_port},
        ]
        base = {"servers": servers, "logs": [{"path": str(self.log)}], "pidfile": str(self.pidfile)}
        by_key = named(changes)
        self.config.write_text(json.dumps(base | {"drain.time": 0.2} | by_key))

    def run(self, command: str, *options: str, **more: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command, and wait for it."""
        with subprocess.Popen(self.words(command, *options), **self._streams(more)) as process:
            out, err = process.communicate(timeout=SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def begin(self, command: str, *options: str, **more: Any) -> "subprocess.Popen[str]":
        """Start a command."""
        return subprocess.Popen(self.words(command, *options), **self._streams(more))

    def start(self) -> psutil.Process:
        """Start the server and return its supervisor."""
        done = self.run("start")
        assert done.returncode == 0, done
        return self.supervisor()

    def supervisor(self) -> psutil.Process:
        """The process that the pidfile names."""
        return psutil.Process(int(self.pidfile.read_text()))

    def worker(self) -> psutil.Process:
        """Wait for a worker that responds."""
        return psutil.Process(wait_until(self._worker_pid, "a worker that answers"))

    def next_worker(self, before: psutil.Process) -> psutil.Process:
        """Wait for a worker other than this one."""
        wait_until(lambda: self._worker_pid() not in (0, before.pid), "another worker")
        return self.worker()

    def words(self, command: str, *options: str) -> list[str]:
        """The command line."""
        return [*COMMAND, command, "--config", str(self.config), *options]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the supervisor, and wait until it has ended."""
        supervisor = self.supervisor()
        supervisor.send_signal(number)
        supervisor.wait(SECONDS)

    def kill(self) -> None:
        """Kill supervisor and workers, and wait until they have ended."""
        supervisor = self.supervisor()
        processes = [supervisor, *supervisor.children()]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, SECONDS)

    @property
    def url(self) -> str:
        """The URL for WebSockets."""
        return f"ws://127.0.0.1:{self.client_port}/ws/"

    def answers(self, path: str = "/status/") -> Any:
        """Return the JSON that the admin server responds with; None if it does not respond."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=5) as response:
                return json.load(response)
        except OSError:
            return None

    def status(self) -> dict[str, Any]:
        """Return the status of a server that runs."""
        status = self.answers()
        assert isinstance(status, dict), "the server does not respond"
        return status

    @property
    def connections(self) -> int:
        """The number of connected clients."""
        return int(self.status()["clients.active"])

    def post(
        self, message: dict[str, Any] | list[dict[str, Any]], instance: str = "default"
    ) -> tuple[int, Any]:
        """Publish an object or a list; return the HTTP status and the JSON of the response."""
        url = f"http://127.0.0.1:{self.admin_port}/?instance={quote(instance, safe='')}"
        try:
            with urllib.request.urlopen(url, json.dumps(message).encode(), timeout=5) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def publish(self, *channels: str, instance: str = "default", **fields: object) -> dict[str, Any]:
        """Publish a message with these fields; return its receipt."""
        status, receipt = self.post({"subscribers": channels, **fields}, instance)
        assert status == 200, receipt
        assert isinstance(receipt, dict)
        return receipt

    def logged(self, text: str) -> bool:
        """Whether a line of the log has this text."""
        return self.log.exists() and text in self.log.read_text()

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        with contextlib.suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
            supervisor = self.supervisor()
            if str(self.config) in supervisor.cmdline():
                for process in (supervisor, *supervisor.children()):
                    process.send_signal(signal.SIGKILL)

    def _worker_pid(self) -> int:
        """0 when none answers."""
        answer = self.answers()
        return int(answer["pid"]) if answer else 0

    def _streams(self, more: Mapping[str, Any]) -> dict[str, Any]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return {**pipes, "cwd": self.folder, "env": environment(), **more}


@contextlib.contextmanager
def installed(folder: Path, **changes: Any) -> Iterator[Installation]:
    """Write a configuration; whatever runs of it at the end is killed."""
    installation = Installation(folder, **changes)
    try:
        yield installation
    finally:
        installation.end()


@contextlib.contextmanager
def running_server(folder: Path, **changes: Any) -> Iterator[Installation]:
    """Run a server with this configuration."""
    with installed(folder, **changes) as server:
        server.start()
        yield server
