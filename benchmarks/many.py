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


class Sample(NamedTuple):
    """The server at one moment."""

    at: float
    connections: int
    memory_mib: float
    answer_ms: float


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
            report(*soak(tools, target, browsers, options.workers, options.minutes * 60), options.json)


def soak(
    tools: Path, target: Target, browsers: int, processes: int, seconds: float
) -> tuple[list[Sample], list[dict[str, Any]], int]:
    """Connect all, keep them for a while, publish to all again and again; samples, results, messages published."""
    loads = [load(tools, target, browsers // processes, seconds, number) for number in range(processes)]
    while look(target).connections < browsers // processes * processes:
        if any(each.poll() is not None for each in loads):
            sys.exit("a load generator ended early")
        time.sleep(0.5)
    begun, samples, published = time.monotonic(), [look(target)], 0
    while time.monotonic() < begun + seconds - EVERY:
        if time.monotonic() > begun + published * EVERY:
            publish(target)
            published += 1
        time.sleep(SAMPLE)
        samples.append(look(target))
        print(f"{samples[-1].at - begun:6.0f} s {samples[-1]}", file=sys.stderr)
    results = [json.loads(each.communicate()[0]) for each in loads]
    return samples, results, published


def load(tools: Path, target: Target, browsers: int, seconds: float, number: int) -> "subprocess.Popen[str]":
    """Start a load generator that holds browsers, on loopback addresses of its own."""
    hold = seconds + 60 - 10 * number
    options = ["--conns", browsers, "--channels", 1, "--messages", 0, "--hold", round(hold), "--sources", 200]
    where = [
        "--port",
        target.port,
        "--pub-port",
        target.admin_port,
        "--in-flight",
        200,
        "--connect-timeout",
        600,
    ]
    command = ["taskset", "-c", LOAD_CPU, tools / "wsload", *where, *options]
    return subprocess.Popen([str(each) for each in command], stdout=subprocess.PIPE, text=True)


def look(target: Target) -> Sample:
    """Ask the server how it is."""
    begun = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{target.admin_port}/status/", timeout=30) as answer:
        status = json.load(answer)
    took = (time.perf_counter() - begun) * 1000
    return Sample(time.monotonic(), status["connections"], sum(map(memory, target.pids)) / 1024, took)


def memory(pid: int) -> int:
    """KiB of a process, what it shares with others counted in part (PSS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def publish(target: Target) -> None:
    """Publish a message that the load generators time and count."""
    body = json.dumps({"subscribers": ["CH-0"], "key": f"T{time.monotonic_ns()}T"}).encode()
    urllib.request.urlopen(f"http://127.0.0.1:{target.admin_port}/", body, timeout=30).close()


def report(samples: list[Sample], results: list[dict[str, Any]], published: int, output: Path | None) -> None:
    """Say what came of it."""
    opened = sum(result["opened"] for result in results)
    got = sum(result["deliveries"] for result in results)
    early = sum(result["closed_early"] for result in results)
    third = len(samples) // 3
    first = statistics.median(sample.memory_mib for sample in samples[1 : third + 1])
    last = statistics.median(sample.memory_mib for sample in samples[-third:])
    latencies = [result["latency_ms"] for result in results]
    print(
        f"{opened:,} browsers, {len(samples) * SAMPLE / 60:.0f} minutes, {published} messages to all of them"
    )
    print(f"deliveries {got:,} of {published * opened:,}; connections lost {early}")
    print(
        f"memory {first:.1f} MiB in the first third, {last:.1f} MiB in the last: {last * 1024 / opened:.2f} KB each"
    )
    print(f"delivered to the last browser after {max(each['max'] for each in latencies):.0f} ms")
    print(f"status answered within {max(sample.answer_ms for sample in samples):.1f} ms")
    if output:
        output.write_text(json.dumps({"samples": samples, "results": results}, indent=1))


if __name__ == "__main__":
    main()
