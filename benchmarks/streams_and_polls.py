"""The cost of clients without a WebSocket: memory and CPU per event stream or waiting poll, and per delivery.

python -m benchmarks.streams_and_polls                 # both, with 10,000 clients
python -m benchmarks.streams_and_polls events 20000
"""

import argparse
import asyncio
import json
import resource
import socket
import tempfile
import time
import urllib.request
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from aphlict.config.loader import from_keys
from aphlict.node import Node, ports_of
from aphlict.server.auth import Credentials

KINDS = ("events", "poll")
REQUEST = "GET /{what}?channel={channel}&wait=60 HTTP/1.1\r\nHost: x\r\n\r\n"


def listening(backlog: int = 4096) -> socket.socket:
    """A listening socket on a free port."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=backlog)
    sock.setblocking(False)
    return sock


def serve(pipe: Connection) -> None:
    """Run a node until the other end of the pipe is closed."""
    sockets = [listening(), listening()]
    ports = [sock.getsockname()[1] for sock in sockets]
    servers = [{"type": "client", "port": ports[0]}, {"type": "admin", "port": ports[1]}]
    with tempfile.TemporaryDirectory() as folder:
        settings = from_keys({"servers": servers, "pidfile": str(Path(folder) / "pid")})
        node = Node(settings, ports_of(settings, [[sock] for sock in sockets]), [Credentials()] * 2)
        asyncio.run(run(node, pipe, ports))


async def run(node: Node, pipe: Connection, ports: list[int]) -> None:
    """Start the node and send its ports."""
    await node.start()
    pipe.send(ports)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), ended.set)
    await ended.wait()


def connect(port: int, count: int, what: str, *, one_channel: bool) -> list[socket.socket]:
    """Open waiting connections."""
    clients = []
    for number in range(count):
        client = socket.create_connection(("127.0.0.1", port))
        channel = "one" if one_channel else f"PHID-USER-{number:020}"
        client.sendall(REQUEST.format(what=what, channel=channel).encode())
        clients.append(client)
    return clients


def status(port: int) -> int:
    """Return the number of connected clients."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status/") as answer:
        return int(json.load(answer)["clients.active"])


def cpu(process: psutil.Process) -> float:
    """Return the CPU time of a process in seconds."""
    times = process.cpu_times()
    return times.user + times.system


def measure(what: str, count: int, *, one_channel: bool) -> None:
    """Measure, and print one line."""
    ours, theirs = Pipe()
    server = Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    theirs.close()
    client_port, admin_port = ours.recv()
    process = psutil.Process(server.pid)
    for client in connect(client_port, 100, what, one_channel=one_channel):
        client.close()
    memory, used = process.memory_full_info().pss, cpu(process)
    clients = connect(client_port, count, what, one_channel=one_channel)
    while status(admin_port) < count:
        time.sleep(0.1)
    grown = process.memory_full_info().pss - memory
    spent, used = cpu(process) - used, cpu(process)
    print(
        f"{what}: {count} waiting, {grown / count / 1024:.2f} KiB and {spent / count * 1e6:.0f} µs each",
        end="",
    )
    if one_channel:
        took = deliver(admin_port, clients)
        print(
            f"; one message to all: {(cpu(process) - used) / count * 1e6:.0f} µs each, {took:.2f} s", end=""
        )
    print()
    ours.close()
    server.terminate()
    server.join()


def deliver(port: int, clients: list[socket.socket]) -> float:
    """Publish a message; return the seconds until all clients have received it."""
    began = time.monotonic()
    body = json.dumps({"subscribers": ["one"], "text": "x" * 64}).encode()
    urllib.request.urlopen(f"http://127.0.0.1:{port}/", body).close()
    for client in clients:
        got = b""
        while b'"text"' not in got:
            got += client.recv(65536)
    return time.monotonic() - began


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams_and_polls", description=__doc__)
    parser.add_argument("what", nargs="?", choices=KINDS, help="transport (default: both)")
    parser.add_argument("count", nargs="?", type=int, default=10_000, help="number of clients (10,000)")
    parser.add_argument(
        "--one-channel", action="store_true", help="subscribe all to one channel, and publish a message"
    )
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # of this process and of the server
    for what in [options.what] if options.what else KINDS:
        measure(what, options.count, one_channel=options.one_channel)


if __name__ == "__main__":
    main()
