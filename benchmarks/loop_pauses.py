"""The longest pauses of the event loop, while a million deliveries are buffered for slow clients, and while metrics
and traces are requested.

python -m benchmarks.loop_pauses              # with the settings of the server
python -m benchmarks.loop_pauses --untuned    # with Python's default settings of the garbage collector
python -m benchmarks.loop_pauses --slow 0 --idle 0 --crowd 18000    # only metrics and traces, with that many clients

Each callback of the loop is measured in CPU time, so that other programs on the machine do not matter; it includes
the garbage collections that ran during the callback.
"""

import argparse
import asyncio
import gc
import json
import multiprocessing
import resource
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from aphlict.config.loader import from_keys
from aphlict.node import Node, ports_of
from aphlict.process.worker import tune_collector
from aphlict.server.auth import Credentials

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
BUFFER = 4096  # bytes of the kernel for a slow client
PADDING = "x" * 1000
REQUESTS = {
    "metrics": "/metrics",
    "trace of a message": "/trace?id=traced",
    "trace with 500 connections": "/trace?id=traced&connections=1",
    "trace of the last 5 messages": "/trace?channel=crowd",
    "trace of a user": "/trace?user=alice",
}
USERS = [f"PHID-USER-{number:020}" for number in range(25)]


class Pauses:
    """Measures the callbacks of the loop and the garbage collections."""

    def __init__(self) -> None:
        self.callbacks: Counter[str] = Counter()  # name to longest, in microseconds
        self.collections: dict[int, list[float]] = {0: [], 1: [], 2: []}
        self._began = 0.0
        handles: Any = asyncio.Handle
        run = handles._run  # noqa: SLF001 -- asyncio has no hook for this

        def timed(handle: Any) -> None:
            begin = time.thread_time()
            run(handle)
            took = round(1e6 * (time.thread_time() - begin))
            callback = handle._callback  # noqa: SLF001
            name = getattr(callback, "__qualname__", type(callback).__name__)
            self.callbacks[name] = max(self.callbacks[name], took)

        handles._run = timed  # noqa: SLF001
        gc.callbacks.append(self._on_collection)

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.collections[info["generation"]].append(time.thread_time() - self._began)

    def clear(self) -> None:
        """Discard all measurements."""
        self.callbacks.clear()
        for times in self.collections.values():
            times.clear()

    def report(self, what: str) -> None:
        """Print the longest callbacks and collections."""
        print(f"{what}:")
        for name, took in self.callbacks.most_common(3):
            print(f"  callback    {took / 1000:8.1f} ms  {name}")
        for generation, times in self.collections.items():
            longest = 1000 * max(times, default=0)
            print(f"  generation {generation} {longest:7.1f} ms at most, {len(times)} times")


def listening() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0), backlog=4096)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    sock.setblocking(False)
    return sock


async def connect(port: int, channel: str) -> socket.socket:
    """Open a connection, subscribe, and read nothing more."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    body = json.dumps({"command": "subscribe", "data": [channel]}).encode()
    await loop.sock_sendall(sock, UPGRADE + bytes((0x81, 0x80 | len(body))) + bytes(4) + body)
    await loop.sock_recv(sock, 4096)
    return sock


async def publish(port: int, messages: list[dict[str, Any]]) -> None:
    """Publish a list."""
    loop = asyncio.get_running_loop()
    body = json.dumps(messages).encode()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        await loop.sock_sendall(sock, head + body)
        answer = await loop.sock_recv(sock, 4096)
        assert answer.startswith(b"HTTP/1.1 200"), answer


async def fetch(port: int, path: str) -> bytes:
    """Send a GET request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer
    return answer


@contextmanager
def crowd(port: int, count: int) -> Iterator[Event]:
    """Connect clients in a process of its own, whose descriptors do not count here; then set the event."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(port, count, ready))
    process.start()
    try:
        yield ready
    finally:
        process.terminate()
        process.join()


def _hold(port: int, count: int, ready: Event) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

    async def hold() -> None:
        held = [await connect(port, "crowd") for _ in range(count)]
        ready.set()
        await asyncio.sleep(3600 * len(held))

    asyncio.run(hold())


async def measure_requests(count: int, node: Node, ports: list[int], pauses: Pauses) -> None:
    """Request metrics and traces, while so many clients are connected."""
    with crowd(ports[0], count) as ready:
        await asyncio.to_thread(ready.wait)
        await publish(ports[1], [{"subscribers": ["crowd"], "uniqueID": "traced"}] * 2)
        await publish(ports[1], [{"subscribers": ["crowd"]}] * 4)
        while node.hub.fan_out.queued:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for what, path in REQUESTS.items():
            repeats = 200 if path == "/metrics" else 20
            await fetch(ports[1], path)
            pauses.clear()
            begin = time.thread_time()
            for _ in range(repeats):
                await fetch(ports[1], path)
            took = (time.thread_time() - begin) / repeats
            pauses.report(f"{repeats} times {what} with {count} clients, {1000 * took:.1f} ms each")


async def measure(options: argparse.Namespace, node: Node, ports: list[int]) -> None:
    """Run the node and generate the load."""
    pauses = Pauses()
    await node.start()
    if not options.untuned:
        tune_collector()
    slow = [await connect(ports[0], "slow") for _ in range(options.slow)]
    idle = [await connect(ports[0], f"idle-{number}") for number in range(options.idle)]
    pauses.report(f"{options.slow} slow and {options.idle} idle clients connect")
    pauses.clear()
    for _ in range(0, options.messages, 100):
        await publish(ports[1], [{"subscribers": ["slow"], "padding": PADDING}] * 100)
        while node.hub.fan_out.queued:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    pauses.report(f"{options.messages} messages to the slow ones")
    pauses.clear()
    for _ in range(options.lists):
        await publish(ports[1], [{"subscribers": USERS, "key": n} for n in range(1024)])
    pauses.report(f"{options.lists} lists of 1,024 messages to {len(USERS)} others")
    pauses.clear()
    for number in range(options.singles):
        await publish(ports[1], [{"subscribers": ["nobody"], "key": number}])
    pauses.report(f"{options.singles} single messages to others")
    for sock in (*slow, *idle):
        sock.close()
    await measure_requests(options.crowd, node, ports, pauses)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop_pauses", description=__doc__)
    parser.add_argument("--slow", type=int, default=1000, help="clients that read nothing (1,000)")
    parser.add_argument("--idle", type=int, default=2000, help="clients that get nothing (2,000)")
    parser.add_argument("--crowd", type=int, default=5000, help="clients while requests are made (5,000)")
    parser.add_argument("--messages", type=int, default=1100, help="for each of the slow ones (1,100)")
    parser.add_argument("--lists", type=int, default=20)
    parser.add_argument("--singles", type=int, default=2000)
    parser.add_argument("--untuned", action="store_true")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sockets = [listening(), listening()]
    ports = [sock.getsockname()[1] for sock in sockets]
    raw = {
        "servers": [{"type": "client", "port": ports[0]}, {"type": "admin", "port": ports[1]}],
        "pidfile": str(Path(tempfile.gettempdir()) / "unused"),
        "limits.send_buffer": 1 << 30,
        "limits.send_buffer.total": 1 << 30,
        "limits.delivery_queue": 1 << 30,
        "limits.connections": 1 << 20,
        "ping.interval": 3600,
        "ping.timeout": 7200,
    }
    settings = from_keys(raw)
    node = Node(settings, ports_of(settings, [[sock] for sock in sockets]), [Credentials()] * 2)
    asyncio.run(measure(options, node, ports))


if __name__ == "__main__":
    main()
