"""What browsers cost that wait without a WebSocket: memory for each event stream or poll, and the CPU to tell them.

python -m benchmarks.waiting                 # both, with 10,000 browsers
python -m benchmarks.waiting events 20000
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
    """Serve, and tell the ports."""
    await node.start()
    pipe.send(ports)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), ended.set)
    await ended.wait()


def connect(port: int, count: int, what: str, *, one_channel: bool) -> list[socket.socket]:
    """Open connections that wait."""
    browsers = []
    for number in range(count):
        browser = socket.create_connection(("127.0.0.1", port))
        channel = "one" if one_channel else f"PHID-USER-{number:020}"
        browser.sendall(REQUEST.format(what=what, channel=channel).encode())
        browsers.append(browser)
    return browsers


def status(port: int) -> int:
    """How many are connected."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status/") as answer:
        return int(json.load(answer)["clients.active"])


def cpu(process: psutil.Process) -> float:
    """Seconds that a process has used."""
    times = process.cpu_times()
    return times.user + times.system


def measure(what: str, count: int, *, one_channel: bool) -> None:
    """Print one line."""
    ours, theirs = Pipe()
    server = Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    theirs.close()
    client_port, admin_port = ours.recv()
    process = psutil.Process(server.pid)
    for browser in connect(client_port, 100, what, one_channel=one_channel):
        browser.close()
    memory, used = process.memory_full_info().pss, cpu(process)
    browsers = connect(client_port, count, what, one_channel=one_channel)
    while status(admin_port) < count:
        time.sleep(0.1)
    grown = process.memory_full_info().pss - memory
    spent, used = cpu(process) - used, cpu(process)
    print(
        f"{what}: {count} waiting, {grown / count / 1024:.2f} KiB and {spent / count * 1e6:.0f} µs each",
        end="",
    )
    if one_channel:
        told = tell(admin_port, browsers)
        print(
            f"; one message to all: {(cpu(process) - used) / count * 1e6:.0f} µs each, {told:.2f} s", end=""
        )
    print()
    ours.close()
    server.terminate()
    server.join()


def tell(port: int, browsers: list[socket.socket]) -> float:
    """Publish one message, and wait until all have it: seconds."""
    began = time.monotonic()
    body = json.dumps({"subscribers": ["one"], "text": "x" * 64}).encode()
    urllib.request.urlopen(f"http://127.0.0.1:{port}/", body).close()
    for browser in browsers:
        got = b""
        while b'"text"' not in got:
            got += browser.recv(65536)
    return time.monotonic() - began


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waiting", description=__doc__)
    parser.add_argument("what", nargs="?", choices=KINDS, help="what they wait with; both, if not given")
    parser.add_argument("count", nargs="?", type=int, default=10_000, help="how many wait (10,000)")
    parser.add_argument("--one-channel", action="store_true", help="all on one channel, and tell them")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # of this process and of the server
    for what in [options.what] if options.what else KINDS:
        measure(what, options.count, one_channel=options.one_channel)


if __name__ == "__main__":
    main()
