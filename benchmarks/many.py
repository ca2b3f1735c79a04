"""Very many browsers that mostly wait: memory must stay flat, and nothing may be lost or drift.

python -m benchmarks.many --workers 5 --minutes 10
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
from benchmarks.building import build
from benchmarks.servers import LOAD_CPU, Target

SPARE = (
    0.88  # of the descriptors that a process may have: the kernel spreads browsers almost evenly over workers
)
SAMPLE = 5.0  # seconds between two looks at the server
EVERY = 10.0  # seconds between two messages to everybody
CONNECTING = 600  # seconds in which all browsers have to be there
THIRDS = ("first", "last")
SETTLE = 10.0  # seconds that the last message has to arrive


class Sample(NamedTuple):
    """The server at one moment."""

    at: float
    connections: int
    memory_mib: float
    answer_ms: float
    slab_mib: float


class Outcome(NamedTuple):
    """What a soak saw: samples of the server, what each load generator counted, and the machine before it."""

    samples: list[Sample]
    results: list[dict[str, Any]]
    published: int
    slab_before: float  # MiB

    @property
    def opened(self) -> int:
        """The browsers that were there."""
        return self._count("opened")

    @property
    def missing(self) -> int:
        """Deliveries that never came."""
        return self.published * self.opened - self._count("deliveries")

    @property
    def closed_early(self) -> int:
        """Connections that did not last."""
        return self._count("closed_early")

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost; too many deliveries would be as wrong."""
        return not (self.missing or self.closed_early)

    def _count(self, what: str) -> int:
        return sum(int(result[what]) for result in self.results)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=__doc__)
    parser.add_argument("--workers", type=int, default=5, help="edges of the server, and load generators (5)")
    parser.add_argument("--browsers", type=int, help="as many as the descriptors allow, if not given")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--json", type=Path, help="write all samples there")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    browsers = options.browsers or round(hard * SPARE) * options.workers
    with tempfile.TemporaryDirectory(prefix="aphlict-many-") as folder:
        tools = Path(folder)
        build(tools)
        with servers.aphlict(tools, workers=options.workers) as target:
            outcome = soak(tools, target, browsers, options.workers, options.minutes * 60)
    report(outcome)
    if options.json:
        options.json.write_text(json.dumps(outcome._asdict(), indent=1))
    sys.exit(0 if outcome.is_whole else 1)


def soak(tools: Path, target: Target, browsers: int, processes: int, seconds: float) -> Outcome:
    """Connect all, keep them for a while, and publish to all again and again."""
    each = browsers // processes
    slab_before = slab()
    loads = [load(tools, target, each, seconds) for _ in range(processes)]
    try:
        wait_for_all(target, loads, each * processes)
        samples, published = watch(target, seconds)
    finally:
        for generator in loads:
            generator.terminate()
    results = [json.loads(generator.communicate()[0]) for generator in loads]
    return Outcome(samples, results, published, slab_before)


def wait_for_all(target: Target, loads: "list[subprocess.Popen[str]]", browsers: int) -> None:
    """Wait until all browsers are there."""
    while look(target).connections < browsers:
        if any(generator.poll() is not None for generator in loads):
            sys.exit("a load generator ended early")
        time.sleep(0.5)


def watch(target: Target, seconds: float) -> tuple[list[Sample], int]:
    """Publish to all and look at the server, until the last message had its time; samples, messages published."""
    begun, samples, published = time.monotonic(), [look(target)], 0
    while time.monotonic() < begun + seconds:
        if time.monotonic() > begun + published * EVERY:
            publish(target)
            published += 1
        time.sleep(SAMPLE)
        samples.append(look(target))
        print(f"{samples[-1].at - begun:6.0f} s {samples[-1]}", file=sys.stderr)
    time.sleep(SETTLE)
    return samples, published


def load(tools: Path, target: Target, browsers: int, seconds: float) -> "subprocess.Popen[str]":
    """Start a load generator that holds browsers on several loopback addresses until it is told to end."""
    most = round(CONNECTING + seconds + 60)  # if nobody tells it: the others may take so long to connect
    options = ["--conns", browsers, "--channels", 1, "--messages", 0, "--hold", most, "--sources", 200]
    where = ["--port", target.port, "--pub-port", target.admin_port]
    pace = ["--in-flight", 200, "--connect-timeout", CONNECTING]
    command = ["taskset", "-c", LOAD_CPU, tools / "wsload", *where, *pace, *options]
    return subprocess.Popen([str(each) for each in command], stdout=subprocess.PIPE, text=True)


def look(target: Target) -> Sample:
    """Ask the server how it is."""
    begun = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{target.admin_port}/status/", timeout=30) as answer:
        status = json.load(answer)
    took = (time.perf_counter() - begun) * 1000
    mib = sum(map(memory, target.pids)) / 1024
    return Sample(time.monotonic(), status["connections"], mib, took, slab())


def memory(pid: int) -> int:
    """KiB of a process, what it shares with others counted in part (PSS); 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def slab() -> float:
    """MiB that the kernel has for its own objects, which sockets are: of the whole machine."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Slab:")) / 1024


def publish(target: Target) -> None:
    """Publish a message that the load generators time and count."""
    body = json.dumps({"subscribers": ["CH-0"], "key": f"T{time.monotonic_ns()}T"}).encode()
    urllib.request.urlopen(f"http://127.0.0.1:{target.admin_port}/", body, timeout=30).close()


def report(outcome: Outcome) -> None:
    """Say what came of it."""
    samples, opened = outcome.samples, outcome.opened
    due = outcome.published * opened
    minutes = round((samples[-1].at - samples[0].at) / 60, 1)
    print(f"{opened:,} browsers, {minutes:g} min, {outcome.published} messages to all of them")
    print(f"deliveries {due - outcome.missing:,} of {due:,}; connections lost {outcome.closed_early}")
    latencies = [result["latency_ms"] for result in outcome.results]
    first, last = (statistics.median(each[f"p50_{third}_third"] for each in latencies) for third in THIRDS)
    print(f"delivered after {first:.0f} ms in the first third, {last:.0f} ms in the last (medians)")
    print(f"delivered to the last browser after {max(each['max'] for each in latencies):.0f} ms")
    first, last = thirds([sample.answer_ms for sample in samples])
    print(f"status answered within {first:.1f} ms in the first third, {last:.1f} ms in the last (medians)")
    print(f"status answered within {max(sample.answer_ms for sample in samples):.1f} ms always")
    first, last = thirds([sample.memory_mib for sample in samples[1:] or samples])
    print(
        f"memory {first:.1f} MiB in the first third, {last:.1f} MiB in the last (medians): "
        f"{last * 1024 / opened:.2f} KB each"
    )
    grown = statistics.median(sample.slab_mib for sample in samples) - outcome.slab_before
    print(f"Slab of the machine grew by {grown:.0f} MiB: {grown * 1024 / opened / 2:.1f} KB for each socket")


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """The medians of the first third and of the last."""
    third = max(1, len(values) // 3)
    return statistics.median(values[:third]), statistics.median(values[-third:])


if __name__ == "__main__":
    main()
