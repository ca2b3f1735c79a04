"""Run two nodes for a long time under all kinds of load and faults.

    python -m benchmarks.soak --minutes 30 --plot docs/soak.svg

It prints a line of figures every few seconds and the losses at the end, and draws memory, descriptors, latency and
losses over time.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from matplotlib.figure import Figure
from tornado.httpclient import HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from benchmarks.servers import free_port, wait_for_port, worker_pids
from benchmarks.soak_clients import HOST, Account, Client, misbehave, read_slowly

CHANNELS, STEADY, GUESTS, SLOW, BAD = 10, 100, 50, 10, 10
RATE = 20.0  # messages per second
LARGE_RATE = 5.0  # per second, of the large messages for clients that do not read
LARGE = "x" * 16_384
SAMPLE = 5.0  # seconds
RELOAD, ROTATE, KILL = 60.0, 90.0, 120.0  # seconds between reloads, log rotations, kills of the peer
RESTART_DELAY = 5.0  # seconds until the peer is started again
SETTLE = 12.0  # seconds for the last deliveries


class Node:
    """A server that can be killed and started again."""

    def __init__(self, folder: Path, name: str, peers: list[int], admin_port: int) -> None:
        self.port, self.admin_port = free_port(), admin_port
        self.config, self.log = folder / f"{name}.json", folder / f"{name}.log"
        servers = [
            {"type": "client", "port": self.port, "listen": HOST},
            {"type": "admin", "port": admin_port},
        ]
        cluster = [{"host": HOST, "port": port} for port in peers]
        pidfile, logs = str(folder / f"{name}.pid"), [{"path": str(self.log)}]
        self.config.write_text(
            json.dumps({"servers": servers, "cluster": cluster, "pidfile": pidfile, "logs": logs})
        )
        self.start()

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        command = [sys.executable, "-m", "aphlict", "start", "--foreground", "--config", str(self.config)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_port(self.admin_port)
        self.worker = psutil.Process(worker_pids(self.admin_port, 1)[0])

    def kill(self) -> None:
        """Kill supervisor and worker."""
        parent = psutil.Process(self.process.pid)
        for process in (*parent.children(), parent):
            process.send_signal(signal.SIGKILL)
        self.process.wait()


class Soak:
    """One run; `lines` are its samples."""

    def __init__(self, folder: Path) -> None:
        ports = free_port(), free_port()
        self.node = Node(folder, "node", [ports[1]], ports[0])
        self.peer = Node(folder, "peer", [ports[0]], ports[1])
        self.account = Account()
        self.lines: list[dict[str, float]] = []
        self.marks: list[tuple[float, str]] = []
        self.began = time.monotonic()
        self._http = SimpleAsyncHTTPClient(force_instance=True, max_clients=100)
        self._posts: list[float] = []
        self._publishing: set[asyncio.Task[None]] = set()
        names = [f"channel{number}" for number in range(CHANNELS)]
        self.clients = [
            Client(self.node.port, names[each % CHANNELS], self.account) for each in range(STEADY)
        ] + [
            Client(self.node.port, names[each % CHANNELS], self.account, stay=(1, 20))
            for each in range(GUESTS)
        ]

    async def run(self, seconds: float) -> None:
        """Generate load for this time, then wait for the last deliveries."""
        listeners = [asyncio.create_task(client.run()) for client in self.clients]
        await asyncio.sleep(1)
        others = [read_slowly(self.node.port, "large", self.account) for _ in range(SLOW)]
        others += [misbehave(self.node.port, self.account) for _ in range(BAD)]
        others += [self._publish_all(), self._publish_large(), self._sample(), self._kill_peer()]
        others += [self._signal(RELOAD, signal.SIGHUP), self._signal(ROTATE, signal.SIGUSR1)]
        tasks = [asyncio.create_task(each) for each in others]
        ended, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()  # none should have
        for task in tasks:
            task.cancel()
        for client in self.clients:
            client.away = (0, 0)
        await asyncio.sleep(SETTLE)
        for listener in listeners:
            if listener.done():
                listener.result()  # it should not have ended
            listener.cancel()

    async def _publish_all(self) -> None:
        number = 0
        while True:
            channel = f"channel{number % CHANNELS}"
            number += 1
            self.account.published[channel] += 1
            task = asyncio.create_task(self._publish(channel, self.account.published[channel]))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)
            await asyncio.sleep(1 / RATE)

    async def _publish(self, channel: str, number: int, text: str = "x" * 64) -> None:
        began = time.monotonic()
        body = {"subscribers": [channel], "n": number, "sent": began, "text": text}
        request = HTTPRequest(
            f"http://{HOST}:{self.node.admin_port}/",
            method="POST",
            body=json.dumps(body),
            request_timeout=10,
        )
        answer = await self._http.fetch(request, raise_error=False)
        if answer.code == 200:
            self._posts.append(time.monotonic() - began)
        else:
            self.account.events["publishes refused"] += 1
            self.account.refused.add((channel, number))

    async def _publish_large(self) -> None:
        while True:
            await self._publish("large", 0, LARGE)
            await asyncio.sleep(1 / LARGE_RATE)

    async def _signal(self, every: float, number: signal.Signals) -> None:
        while True:
            await asyncio.sleep(every)
            self.node.process.send_signal(number)
            self.marks.append((time.monotonic() - self.began, number.name))

    async def _kill_peer(self) -> None:
        while True:
            await asyncio.sleep(KILL)
            self.peer.kill()
            self.marks.append((time.monotonic() - self.began, "peer killed"))
            await asyncio.sleep(RESTART_DELAY)
            await asyncio.to_thread(self.peer.start)

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE)
            self.lines.append(await self._measure())
            print(json.dumps(self.lines[-1]), flush=True)

    async def _measure(self) -> dict[str, float]:
        worker, account = self.node.worker, self.account
        latencies, account.latencies = sorted(account.latencies) or [0.0], []
        posts, self._posts = sorted(self._posts) or [0.0], []
        answer = await self._http.fetch(f"http://{HOST}:{self.node.admin_port}/status/")
        status: dict[str, Any] = json.loads(answer.body)
        times = worker.cpu_times()
        return {
            "seconds": round(time.monotonic() - self.began, 1),
            "memory (MiB)": round(worker.memory_full_info().uss / 2**20, 2),
            "descriptors": worker.num_fds(),
            "clients": status["clients.active"],
            "CPU (s)": round(times.user + times.system, 1),
            "latency p50 (ms)": round(statistics.median(latencies) * 1000, 2),
            "latency p99 (ms)": round(latencies[int(len(latencies) * 0.99)] * 1000, 2),
            "publish p99 (ms)": round(posts[int(len(posts) * 0.99)] * 1000, 2),
            "queued for the peer": status["peers"][0]["queued"],
            "lost": self.lost(settled=False),
            **account.events,
        }

    def lost(self, *, settled: bool) -> int:
        """Count lost acknowledged messages; before the end, only of steady clients and without the last few."""
        spared = 0 if settled else int(RATE / CHANNELS) + 2
        clients = self.clients if settled else self.clients[:STEADY]
        return sum(
            each.missing(self.account.published[each.channel] - spared) for each in clients if each.first
        )


@contextlib.contextmanager
def soaking(folder: Path) -> Iterator[Soak]:
    """Run a soak; stop its servers at the end."""
    soak = Soak(folder)
    try:
        yield soak
    finally:
        soak.node.process.terminate()
        soak.peer.process.terminate()
        soak.node.process.wait()
        soak.peer.process.wait()


def draw(path: Path, lines: list[dict[str, float]], marks: list[tuple[float, str]]) -> None:
    """Draw four panels over time."""
    panels = (
        ("memory of the worker (MiB)", ["memory (MiB)"]),
        ("descriptors and clients", ["descriptors", "clients"]),
        ("milliseconds from publish to client", ["latency p50 (ms)", "latency p99 (ms)"]),
        ("messages lost; messages queued for the peer", ["lost", "queued for the peer"]),
    )
    figure = Figure(figsize=(10, 10), layout="constrained")
    minutes = [line["seconds"] / 60 for line in lines]
    for axes, (title, keys) in zip(figure.subplots(len(panels), 1, sharex=True), panels, strict=True):
        for key in keys:
            axes.plot(minutes, [line[key] for line in lines], label=key, linewidth=1)
        for second, what in marks:
            if what == "peer killed":
                axes.axvline(second / 60, color="#d0a0a0", linewidth=0.8, linestyle=":")
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, loc="center right", frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("minutes (dotted: the peer is killed)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--plot", type=Path, help="write the plot to this file")
    parser.add_argument("--keep", type=Path, help="write samples, marks and errors to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aphlict-soak-") as temporary:
        folder = Path(temporary)
        with soaking(folder) as soak:
            asyncio.run(soak.run(options.minutes * 60))
        errors = [line for line in soak.node.log.read_text().splitlines() if " ERROR " in line]
        if options.keep:
            options.keep.write_text(json.dumps({"lines": soak.lines, "marks": soak.marks, "errors": errors}))
    lost, twice = soak.lost(settled=True), soak.account.events["twice"]
    print(f"lost {lost}, twice {twice}, errors in the log {len(errors)}; {dict(soak.account.events)}")
    print(*errors[:10], sep="\n")
    if options.plot:
        draw(options.plot, soak.lines, soak.marks)
    sys.exit(1 if lost or twice or errors else 0)


if __name__ == "__main__":
    main()
