"""Run two nodes for a long time with all that browsers, publishers, operators and peers do to them.

    python -m benchmarks.soak --minutes 30 --plot docs/soak.svg

Every few seconds it writes a line of figures; at the end it says what was lost, and draws memory, descriptors,
latency and loss over time.
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

from benchmarks.crowd import HOST, Account, Browser, misbehave, read_slowly
from benchmarks.servers import free_port, wait_for_port, worker_pids

CHANNELS, STEADY, GUESTS, SLOW, BAD = 10, 100, 50, 10, 10
RATE = 20.0  # messages a second
LARGE_RATE = 5.0  # large ones a second, for those who do not read
LARGE = "x" * 16_384
SAMPLE = 5.0  # seconds
RELOAD, ROTATE, KILL = 60.0, 90.0, 120.0  # seconds between two reloads, log rotations, deaths of the peer
MOURNING = 5.0  # seconds until the peer is started again
SETTLE = 12.0  # seconds to wait for what is on its way at the end


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
        """Start it, and wait until it accepts."""
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
        self.browsers = [
            Browser(self.node.port, names[each % CHANNELS], self.account) for each in range(STEADY)
        ] + [
            Browser(self.node.port, names[each % CHANNELS], self.account, stay=(1, 20))
            for each in range(GUESTS)
        ]

    async def run(self, seconds: float) -> None:
        """Do all of it for so long, then let it settle."""
        listeners = [asyncio.create_task(browser.run()) for browser in self.browsers]
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
        for browser in self.browsers:
            browser.away = (0, 0)
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
            await asyncio.sleep(MOURNING)
            await asyncio.to_thread(self.peer.start)

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE)
            self.lines.append(await self._look())
            print(json.dumps(self.lines[-1]), flush=True)

    async def _look(self) -> dict[str, float]:
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
            "browsers": status["clients.active"],
            "CPU (s)": round(times.user + times.system, 1),
            "latency p50 (ms)": round(statistics.median(latencies) * 1000, 2),
            "latency p99 (ms)": round(latencies[int(len(latencies) * 0.99)] * 1000, 2),
            "publish p99 (ms)": round(posts[int(len(posts) * 0.99)] * 1000, 2),
            "queued for the peer": status["peers"][0]["queued"],
            "lost": self.lost(settled=False),
            **account.events,
        }

    def lost(self, *, settled: bool) -> int:
        """Acknowledged messages that did not arrive; before the end, of browsers that stay, but for the last few."""
        spared = 0 if settled else int(RATE / CHANNELS) + 2
        browsers = self.browsers if settled else self.browsers[:STEADY]
        return sum(
            each.missing(self.account.published[each.channel] - spared) for each in browsers if each.first
        )


@contextlib.contextmanager
def soaking(folder: Path) -> Iterator[Soak]:
    """A soak whose servers are gone at the end."""
    soak = Soak(folder)
    try:
        yield soak
    finally:
        soak.node.process.terminate()
        soak.peer.process.terminate()
        soak.node.process.wait()
        soak.peer.process.wait()


def draw(path: Path, lines: list[dict[str, float]], marks: list[tuple[float, str]]) -> None:
    """Four panels over the minutes."""
    panels = (
        ("memory of the worker (MiB)", ["memory (MiB)"]),
        ("descriptors and browsers", ["descriptors", "browsers"]),
        ("milliseconds from publish to browser", ["latency p50 (ms)", "latency p99 (ms)"]),
        ("messages lost; messages that wait for the peer", ["lost", "queued for the peer"]),
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
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--plot", type=Path, help="where the picture goes")
    parser.add_argument(
        "--keep", type=Path, help="write samples and marks there, and keep the logs beside it"
    )
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
