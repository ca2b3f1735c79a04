"""Starts the servers to be measured, as a user would, pinned to the first processor."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SERVER_CPU, LOAD_CPU = 0, 1
SECONDS = 20.0


class Target(NamedTuple):
    """A running server, for the load generator."""

    name: str
    port: int
    admin_port: int
    pids: tuple[int, ...]
    options: tuple[str, ...] = ()  # of wsload, for this server


def free_port() -> int:
    """Return an unused port."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as sock:
        return int(sock.getsockname()[1])


def wait_for_port(port: int) -> None:
    """Wait until a server accepts connections."""
    deadline = time.monotonic() + SECONDS
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        if time.monotonic() > deadline:
            sys.exit(f"nothing listens on port {port} after {SECONDS} s")
        time.sleep(0.05)


@contextlib.contextmanager
def running(command: list[str], port: int, *, cpu: int | None = SERVER_CPU, **more: Any) -> Iterator[int]:
    """Run a server; yield its pid."""
    pin = ["taskset", "-c", str(cpu)] if cpu is not None else []
    with subprocess.Popen(
        [*pin, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more
    ) as process:
        try:
            wait_for_port(port)
            yield process.pid
        finally:
            process.terminate()


@contextlib.contextmanager
def rawlimit(tools: Path) -> Iterator[Target]:
    """Run the floor: a server that only calls send()."""
    port, admin_port = free_port(), free_port()
    with running([str(tools / "rawlimit"), str(port), str(admin_port)], port) as pid:
        yield Target("rawlimit (the kernel alone)", port, admin_port, (pid,))


@contextlib.contextmanager
def aphlict(tools: Path, *, tls: tuple[Path, Path] | None = None, workers: int = 1) -> Iterator[Target]:
    """Run this project's server."""
    port, admin_port = free_port(), free_port()
    client: dict[str, Any] = {"type": "client", "port": port, "listen": "127.0.0.1"}
    if tls is not None:
        client |= {"ssl.key": str(tls[0]), "ssl.cert": str(tls[1])}
    config = tools / f"aphlict-{port}.json"
    settings = {
        "servers": [client, {"type": "admin", "port": admin_port}],
        "pidfile": str(tools / f"aphlict-{port}.pid"),
        "logs": [{"path": str(tools / f"aphlict-{port}.log")}],
        "workers": workers,
    }
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "aphlict", "start", "--foreground", "--config", str(config)]
    with running(command, admin_port, cpu=SERVER_CPU if workers == 1 else None):
        name = "Aphlict" + (" with TLS" if tls else "") + (f", {workers} workers" if workers > 1 else "")
        yield Target(name, port, admin_port, worker_pids(admin_port, workers), ("--tls",) if tls else ())


def worker_pids(admin_port: int, workers: int) -> tuple[int, ...]:
    """Return the pids of the processes with connections, once the status lists all workers."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/status/", timeout=5) as answer:
            status = json.load(answer)
        edges = status.get("workers", ())
        if workers == 1 or len(edges) == workers:
            return tuple(dict.fromkeys([status["pid"], *(worker["pid"] for worker in edges)]))
        time.sleep(0.05)
    sys.exit(f"{workers} workers did not start within {SECONDS} s")


def measure(tools: Path, target: Target, *options: str | int) -> dict[str, Any]:
    """Run the load generator against a server; return its result."""
    where = [
        "--port",
        target.port,
        "--pub-port",
        target.admin_port,
        "--pids",
        ",".join(map(str, target.pids)),
    ]
    command = ["taskset", "-c", LOAD_CPU, tools / "wsload", *where, *target.options, *options]
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    if not done.stdout:
        sys.exit(f"{target.name}: load generator: {done.stderr.strip()}")
    result = json.loads(done.stdout)
    if result["lost"] > 0 or result["failed"]:
        print(f"{target.name} lost {result['lost']} messages, refused {result['failed']}", file=sys.stderr)
    return dict(result)


def pid_environment() -> dict[str, str]:
    """Return the environment for servers in other languages."""
    return {**os.environ, "NODE_ENV": "production"}
