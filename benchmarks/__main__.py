"""Run the workloads in turns against the server and the floor (the kernel alone), and print a table."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import competitors, servers, workloads
from benchmarks.build_tools import build, knows_tls
from benchmarks.table import OURS, Values, add, compare, cpu_with, print_table
from benchmarks.workloads import Figure


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=5, help="runs of each workload; the table shows the median (5)"
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="fraction of the messages and clients, for a quick test (1.0)",
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="number of workers that is compared with one worker (2)"
    )
    parser.add_argument(
        "--competitors", action="store_true", help="also measure nchan, websockets and ws, if installed"
    )
    parser.add_argument(
        "--json", type=Path, help="write all figures of all runs to this file, for benchmarks.plots"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aphlict-bench-") as folder:
        tools = Path(folder)
        build(tools)
        measured = {OURS: Values(), "floor": Values()}
        for run in range(options.runs):
            print(f"run {run + 1} of {options.runs}", file=sys.stderr)
            measure_once(tools, options.scale, measured)
            measure_workers(tools, options.scale, options.workers, measured[OURS])
            add(measured[OURS], compare(measured[OURS], options.workers))
            if options.competitors:
                competitors.measure_once(tools, options.scale, measured)
    print_table(measured, options.scale)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1))


def measure_once(tools: Path, scale: float, measured: dict[str, Values]) -> None:
    """Run all workloads once; server and floor take turns."""
    with servers.rawlimit(tools) as floor, servers.aphlict(tools) as ours:
        for work in workloads.FLOOR:
            add(measured["floor"], work(tools, floor, scale))
            add(measured[OURS], work(tools, ours, scale))
    for work in workloads.PLAIN[len(workloads.FLOOR) :]:
        with servers.aphlict(tools) as fresh:
            add(measured[OURS], work(tools, fresh, scale))
    if knows_tls(tools):
        with servers.aphlict(tools, tls=make_certificate(tools)) as secure:
            add(measured[OURS], workloads.tls(tools, secure, scale))


def measure_workers(tools: Path, scale: float, count: int, values: Values) -> None:
    """Measure a delivery with one worker and with several; neither is pinned to a processor."""
    for workers in (1, count):
        with servers.aphlict(tools, workers=workers) as target:
            figures = workloads.fan_out(2000)(tools, target, scale)
        cpu = next(figure.value for figure in figures if "CPU per delivery" in figure.what)
        add(values, [Figure(cpu_with(workers), cpu, "µs")])


def make_certificate(tools: Path) -> tuple[Path, Path]:
    """Create a P-256 key and a self-signed certificate."""
    key, certificate = tools / "key.pem", tools / "cert.pem"
    if not key.exists():
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        files = ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost", "-days", "2"]
        subprocess.run([*new, *files], check=True, capture_output=True)
    return key, certificate


if __name__ == "__main__":
    main()
