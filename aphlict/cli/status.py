"""`status`: whether the server is running, and its statistics."""

import math
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from aphlict.cli.console import error, note, out, out_json
from aphlict.cli.options import load_settings
from aphlict.cli.overview_text import describe_counts, describe_peer, duration, mebibytes
from aphlict.cli.watch import watch
from aphlict.doctor.admin_client import request_json
from aphlict.errors import AdminUnreachable, ConfigError
from aphlict.process.pidfile import find_running

EXAMPLES = {
    "status": (
        "aphlict status",
        "aphlict status --json | jq .connections",
        "aphlict status --watch",
        "aphlict status --watch 10 --json | jq .figures.waiting_bytes",
    )
}
RUNNING, NOT_RUNNING = 0, 1
MAX_START_SECONDS = 10.0  # the first workers start that much later than the supervisor, at most
WATCH_INTERVAL = 2.0  # seconds; a server makes no overview more often
MIN_WATCH_INTERVAL, MAX_WATCH_INTERVAL = 0.1, 86400.0
COUNTERS = ("connections", "clients.total", "messages.in", "messages.out")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        nargs="?",
        const=WATCH_INTERVAL,
        type=interval,
        help=f"show an overview again and again, until Ctrl-C (default: every {WATCH_INTERVAL:g} seconds)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object; with --watch, one on each line"
    )
    parser.epilog = (
        "exit status: 0 the server is running, or --watch was ended by Ctrl-C; 1 it is not running;"
        " 77 invalid command line or configuration"
    )


def interval(text: str) -> float:
    """Accept a number of seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not MIN_WATCH_INTERVAL <= seconds <= MAX_WATCH_INTERVAL:
        raise ArgumentTypeError(
            f"{text!a} is not a number of seconds from {MIN_WATCH_INTERVAL:g} to {MAX_WATCH_INTERVAL:g}"
        )
    return seconds


def run(arguments: Namespace) -> int:
    """Print the status. A server that is running but does not respond counts as running."""
    if arguments.watch is not None:
        _, settings = load_settings(arguments, show=note)
        return watch(settings, arguments.watch, as_json=arguments.json)
    _, settings = load_settings(arguments, show=note if arguments.json else out)
    process = find_running(Path(settings.pidfile))
    facts: dict[str, Any] = {"running": process is not None}
    if process is not None:
        facts |= _processes(process)
        try:
            facts |= _merge_workers(request_json(settings, "GET", "/status/"), facts["workers"])
        except (AdminUnreachable, ConfigError) as failure:
            error(str(failure))
            facts["error"] = str(failure)
    if arguments.json:
        out_json(facts)
    else:
        for line in format_status(facts, [each.path for each in settings.logs]):
            out(line)
    return RUNNING if process is not None else NOT_RUNNING


def _processes(supervisor: psutil.Process) -> dict[str, Any]:
    workers = [
        {"pid": worker.pid, "age": _age(worker), "memory": _memory(worker)}
        for worker in _children(supervisor)
    ]
    youngest = min((worker["age"] for worker in workers), default=0.0)
    return {
        "pid": supervisor.pid,
        "age": {"supervisor": _age(supervisor), "workers": youngest},
        "workers": workers,
        "memory": {
            "supervisor": _memory(supervisor),
            "workers": sum(worker["memory"] for worker in workers),
        },
    }


def _children(process: psutil.Process) -> list[psutil.Process]:
    """Return the child processes: none if it has just exited, or /proc is mounted with hidepid."""
    try:
        return process.children()
    except psutil.Error:
        return []


def _age(process: psutil.Process) -> float:
    """Return the seconds since the process was started."""
    try:
        return max(0.0, time.time() - process.create_time())
    except psutil.Error:
        return 0.0


def _memory(process: psutil.Process) -> int:
    """Return the resident memory in bytes."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _merge_workers(status: dict[str, Any], processes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the node's status with all processes as `workers`; `pid` stays the supervisor's.

    The processes that serve clients have `connections`; with several workers the hub has none.
    """
    connections = {worker["pid"]: worker["connections"] for worker in status["workers"]}
    workers = [
        each | ({"connections": connections[each["pid"]]} if each["pid"] in connections else {})
        for each in processes
    ]
    return {key: value for key, value in status.items() if key != "pid"} | {"workers": workers}


def format_status(facts: dict[str, Any], logs: Sequence[str]) -> Iterator[str]:
    """Yield the lines that `status` prints without --json."""
    if not facts["running"]:
        yield "The server is not running (start it with `aphlict start`)."
        yield from (f"  log          {path}" for path in logs if Path(path).exists())
        return
    yield f"The server is running (process {facts['pid']}, for {duration(facts['age']['supervisor'])})."
    if facts["age"]["supervisor"] - facts["age"]["workers"] > MAX_START_SECONDS:
        yield f"  worker       restarted {duration(facts['age']['workers'])} ago (see the log for the reason)"
    if "state" in facts:
        yield f"  state        {facts['state']}, node {facts['fingerprint']}"
        now, total, received, sent = (facts[key] for key in COUNTERS)
        limit = f"limit {facts['connections.max']:,} ({facts['connections.bound']})"
        yield f"  connections  {now:,} now, {total:,} in total, {limit}"
        yield f"  messages     {received:,} in, {sent:,} out"
        yield from describe_counts("reached", facts.get("limits", {}))
        yield from describe_counts("rejected", facts.get("refused", {}))
    shares = ", ".join(f"{name} {mebibytes(size)}" for name, size in facts["memory"].items())
    yield f"  memory       {mebibytes(sum(facts['memory'].values()))} ({shares})"
    for peer in facts.get("peers", ()):
        yield f"  peer         {describe_peer(peer)}"
    yield from (f"  log          {path}" for path in logs)
