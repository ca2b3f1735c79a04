"""Very many mostly idle clients: memory and latency must stay constant, and no delivery may be lost.

python -m benchmarks.idle_connections --workers 5 --minutes 10
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import servers
from benchmarks.build_tools import build
from benchmarks.servers import LOAD_CPU, Target

MAX_DESCRIPTORS = (
    0.88  # fraction of the limit: the kernel distributes connections not quite evenly over workers
)
SAMPLE = 5.0  # seconds between samples
PUBLISH_INTERVAL = 10.0  # seconds between messages to all clients
CONNECT_TIMEOUT = 600  # seconds for all clients together
THIRDS = ("first", "last")
UNIQUE_ID = "message-"
SCRAPES, TRACES = 200, 20
PAUSE = 0.02  # seconds between two requests
SETTLE = 10.0  # seconds for the deliveries of the last message


class Sample(NamedTuple):
    """The state of the server at one time."""

    at: float
    connections: int
    memory_mib: float
    answer_ms: float
    slab_mib: float
    scrape_ms: float  # of GET /metrics


class Requests(NamedTuple):
    """Requests of one kind: how long each took, and the processor time of the server for one, on average."""

    milliseconds: list[float]
    server_milliseconds: float

    def describe(self) -> str:
        """Return a sentence."""
        times = sorted(self.milliseconds)
        return (
            f"{statistics.median(times):.1f} ms (median), {times[len(times) * 99 // 100]:.1f} ms (99 %), "
            f"{times[-1]:.1f} ms always; {self.server_milliseconds:.1f} ms of CPU"
        )


class Outcome(NamedTuple):
    """The result: samples of the server, the counters of each load generator, and the slab before the run."""

    samples: list[Sample]
    results: list[dict[str, Any]]
    published: int
    slab_before: float  # MiB
    scrapes: Requests
    traces: Requests

    @property
    def opened(self) -> int:
        """The number of clients."""
        return self._count("opened")

    @property
    def missing(self) -> int:
        """Deliveries that did not arrive."""
        return self.published * self.opened - self._count("deliveries")

    @property
    def closed_early(self) -> int:
        """Connections that were lost."""
        return self._count("closed_early")

    @property
    def is_complete(self) -> bool:
        """Whether no delivery or connection was lost, and no delivery was repeated."""
        return not (self.missing or self.closed_early)

    def _count(self, what: str) -> int:
        return sum(int(result[what]) for result in self.results)


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle_connections", description=__doc__)
    parser.add_argument(
        "--workers", type=int, default=5, help="worker processes of the server, and load generators (5)"
    )
    parser.add_argument(
        "--clients", type=int, help="number of clients (default: as many as the descriptors allow)"
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--json", type=Path, help="write all samples to this file")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = options.clients or round(hard * MAX_DESCRIPTORS) * options.workers
    with tempfile.TemporaryDirectory(prefix="aphlict-many-") as folder:
        tools = Path(folder)
        build(tools)
        with servers.aphlict(tools, workers=options.workers) as target:
            outcome = soak(tools, target, clients, options.workers, options.minutes * 60)
    report(outcome)
    if options.json:
        options.json.write_text(json.dumps(outcome._asdict(), indent=1))
    sys.exit(0 if outcome.is_complete else 1)


def soak(tools: Path, target: Target, clients: int, processes: int, seconds: float) -> Outcome:
    """Connect all clients and publish to all of them repeatedly."""
    each = clients // processes
    slab_before = slab()
    loads = [load(tools, target, each, seconds) for _ in range(processes)]
    try:
        wait_for_all(target, loads, each * processes)
        samples, published = watch(target, seconds)
        scrapes = request(target, "/metrics", SCRAPES)
        traces = request(target, f"/trace?id={UNIQUE_ID}{published - 1}", TRACES)
    finally:
        for generator in loads:
            generator.terminate()
    results = [json.loads(generator.communicate()[0]) for generator in loads]
    return Outcome(samples, results, published, slab_before, scrapes, traces)


def wait_for_all(target: Target, loads: "list[subprocess.Popen[str]]", clients: int) -> None:
    """Wait until all clients are connected."""
    while sample(target).connections < clients:
        if any(generator.poll() is not None for generator in loads):
            sys.exit("a load generator ended early")
        time.sleep(0.5)


def watch(target: Target, seconds: float) -> tuple[list[Sample], int]:
    """Publish to all and sample the server; return the samples and the number of messages."""
    begun, samples, published = time.monotonic(), [sample(target)], 0
    while time.monotonic() < begun + seconds:
        if time.monotonic() > begun + published * PUBLISH_INTERVAL:
            publish(target, published)
            published += 1
        time.sleep(SAMPLE)
        samples.append(sample(target))
        print(f"{samples[-1].at - begun:6.0f} s {samples[-1]}", file=sys.stderr)
    time.sleep(SETTLE)
    return samples, published


def load(tools: Path, target: Target, clients: int, seconds: float) -> "subprocess.Popen[str]":
    """Start a load generator that keeps clients on several loopback addresses connected until SIGTERM."""
    hold = round(CONNECT_TIMEOUT + seconds + 60)  # at most: the others may need this long to connect
    options = ["--conns", clients, "--channels", 1, "--messages", 0, "--hold", hold, "--sources", 200]
    where = ["--port", target.port, "--pub-port", target.admin_port]
    pace = ["--in-flight", 200, "--connect-timeout", CONNECT_TIMEOUT]
    command = ["taskset", "-c", LOAD_CPU, tools / "wsload", *where, *pace, *options]
    return subprocess.Popen([str(each) for each in command], stdout=subprocess.PIPE, text=True)


def sample(target: Target) -> Sample:
    """Sample the status and the memory of the server."""
    status, took = fetch(target, "/status/")
    _, scrape_took = fetch(target, "/metrics")
    mib = sum(map(memory, target.pids)) / 1024
    return Sample(time.monotonic(), json.loads(status)["connections"], mib, took, slab(), scrape_took)


def fetch(target: Target, path: str) -> tuple[bytes, float]:
    """Return a page of the admin port, and the milliseconds until it had come."""
    begun = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{target.admin_port}{path}", timeout=30) as answer:
        body = answer.read()
    return body, (time.perf_counter() - begun) * 1000


def memory(pid: int) -> int:
    """Return the proportional set size of a process in KiB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def slab() -> float:
    """Return the slab memory of the machine in MiB, which includes sockets."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Slab:")) / 1024


def request(target: Target, path: str, count: int) -> Requests:
    """Request a page many times. The processor time that the server needs without requests is subtracted."""
    begun, cpu = time.monotonic(), processor_time(target)
    times = []
    for _ in range(count):
        times.append(fetch(target, path)[1])
        time.sleep(PAUSE)
    with_requests, seconds = processor_time(target) - cpu, time.monotonic() - begun
    cpu = processor_time(target)
    time.sleep(seconds)
    return Requests(times, (with_requests - (processor_time(target) - cpu)) * 1000 / count)


def processor_time(target: Target) -> float:
    """Return the seconds that the processes of the server have run."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in target.pids) / 1e9


def publish(target: Target, number: int) -> None:
    """Publish a message with the timestamp that the load generators expect."""
    members = {"uniqueID": f"{UNIQUE_ID}{number}", "key": f"T{time.monotonic_ns()}T"}
    body = json.dumps({"subscribers": ["CH-0"], **members}).encode()
    urllib.request.urlopen(f"http://127.0.0.1:{target.admin_port}/", body, timeout=30).close()


def report(outcome: Outcome) -> None:
    """Print the result."""
    samples, opened = outcome.samples, outcome.opened
    due = outcome.published * opened
    minutes = round((samples[-1].at - samples[0].at) / 60, 1)
    print(f"{opened:,} clients, {minutes:g} min, {outcome.published} messages to all of them")
    print(f"deliveries {due - outcome.missing:,} of {due:,}; connections lost {outcome.closed_early}")
    latencies = [result["latency_ms"] for result in outcome.results]
    first, last = (statistics.median(each[f"p50_{third}_third"] for each in latencies) for third in THIRDS)
    print(f"delivered after {first:.0f} ms in the first third, {last:.0f} ms in the last (medians)")
    print(f"delivered to the last client after {max(each['max'] for each in latencies):.0f} ms")
    first, last = thirds([sample.answer_ms for sample in samples])
    print(f"status answered within {first:.1f} ms in the first third, {last:.1f} ms in the last (medians)")
    print(f"status answered within {max(sample.answer_ms for sample in samples):.1f} ms always")
    scrapes = [sample.scrape_ms for sample in samples]
    print(
        f"metrics answered within {statistics.median(scrapes):.1f} ms (median), {max(scrapes):.1f} ms always"
    )
    print(f"metrics answered between messages within {outcome.scrapes.describe()}")
    print(f"trace answered within {outcome.traces.describe()}")
    first, last = thirds([sample.memory_mib for sample in samples[1:] or samples])
    print(
        f"memory {first:.1f} MiB in the first third, {last:.1f} MiB in the last (medians): "
        f"{last * 1024 / opened:.2f} KB each"
    )
    grown = statistics.median(sample.slab_mib for sample in samples) - outcome.slab_before
    print(f"Slab of the machine grew by {grown:.0f} MiB: {grown * 1024 / opened / 2:.1f} KB for each socket")


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """Return the medians of the first and of the last third."""
    third = max(1, len(values) // 3)
    return statistics.median(values[:third]), statistics.median(values[-third:])


if __name__ == "__main__":
    main()
