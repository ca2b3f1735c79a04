"""A server as an operator has it: a configuration in a folder, and the commands as processes of their own."""

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

import psutil

from tests.support.configuration import named
from tests.support.ports import free_ports
from tests.support.waiting import wait_until

PROJECT = Path(__file__).resolve().parent.parent.parent
COMMAND = (sys.executable, "-m", "aphlict")
SECONDS = 30.0


def environment(**changes: str) -> dict[str, str]:
    """What the commands are run with."""
    return {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "error", **changes}


class Installation:
    """A configuration with free ports, a log and a pidfile, all in one folder."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        """Write the configuration; `drain_time=1` sets `drain.time`."""
        self.folder = folder
        self.config = folder / "aphlict.json"
        self.client_port, self.admin_port = free_ports(2)
        self.log = folder / "logs" / "aphlict.log"
        self.pidfile = folder / "run" / "aphlict.pid"
        self.write(**changes)

    def write(self, **changes: Any) -> None:
        """Write the configuration anew, with these changes."""
        servers = [
            {"type": "client", "port": self.client_port, "listen": "127.0.0.1"},
            {"type": "admin", "port": self.admin_port},
        ]
        base = {"servers": servers, "logs": [{"path": str(self.log)}], "pidfile": str(self.pidfile)}
        by_key = named(changes)
        self.config.write_text(json.dumps(base | {"drain.time": 0.2} | by_key))

    def run(self, command: str, *options: str, **more: Any) -> "subprocess.CompletedProcess[str]":
        """Run one command to its end."""
        with subprocess.Popen(self.words(command, *options), **self._streams(more)) as process:
            out, err = process.communicate(timeout=SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def begin(self, command: str, *options: str, **more: Any) -> "subprocess.Popen[str]":
        """Run one command that goes on."""
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
        """The worker, once there is one that answers."""
        return psutil.Process(wait_until(self._worker_pid, "a worker that answers"))

    def next_worker(self, before: psutil.Process) -> psutil.Process:
        """The worker that follows this one."""
        wait_until(lambda: self._worker_pid() not in (0, before.pid), "another worker")
        return self.worker()

    def words(self, command: str, *options: str) -> list[str]:
        """The command line."""
        return [*COMMAND, command, "--config", str(self.config), *options]

    def answers(self, path: str = "/status/") -> Any:
        """What the admin server says, or None."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return None

    def publish(self, message: dict[str, Any] | list[dict[str, Any]]) -> tuple[int, Any]:
        """Publish one object, or a list: the status, and the answer."""
        url = f"http://127.0.0.1:{self.admin_port}/"
        try:
            with urllib.request.urlopen(url, json.dumps(message).encode(), timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

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
    """An installation that is gone at the end."""
    installation = Installation(folder, **changes)
    try:
        yield installation
    finally:
        installation.end()
