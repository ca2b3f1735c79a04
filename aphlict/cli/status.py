"""`status`: whether the server runs, and how it does."""

import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from aphlict.cli import configured
from aphlict.cli.admin import ask
from aphlict.cli.console import complain, remark, say, say_json
from aphlict.errors import AdminUnreachable
from aphlict.process.pidfile import find_running

RUNNING, NOT_RUNNING = 0, 1
YOUNGER = (
    10.0  # seconds by which a worker that was there from the start is younger than the supervisor, at most
)
UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
FIGURES = ("connections", "clients.total", "messages.in", "messages.out")


def run(arguments: Namespace) -> int:
    """Do it; a server that runs but does not answer counts as running."""
    _, settings = configured.load(arguments, tell=remark if arguments.json else say)
    process = find_running(Path(settings.pidfile))
    facts: dict[str, Any] = {"running": process is not None}
    if process is not None:
        facts |= _processes(process)
        try:
            facts |= _node(ask(settings, "GET", "/status/", None), facts["workers"])
        except AdminUnreachable as error:
            complain(str(error))
            facts["error"] = str(error)
    if arguments.json:
        say_json(facts)
    else:
        for line in _lines(facts, [each.path for each in settings.logs]):
            say(line)
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
    """None, if it ended a moment ago or /proc hides them."""
    try:
        return process.children()
    except psutil.Error:
        return []


def _age(process: psutil.Process) -> float:
    """Seconds since it was started."""
    try:
        return max(0.0, time.time() - process.create_time())
    except psutil.Error:
        return 0.0


def _memory(process: psutil.Process) -> int:
    """Bytes that are resident."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _node(status: dict[str, Any], processes: list[dict[str, Any]]) -> dict[str, Any]:
    """What the node says of itself; `pid` stays the supervisor's, and `workers` are all of its `processes`.

    Those that hold browsers have `connections`; with several workers the hub has none.
    """
    held = {worker["pid"]: worker["connections"] for worker in status["workers"]}
    workers = [
        each | ({"connections": held[each["pid"]]} if each["pid"] in held else {}) for each in processes
    ]
    return {key: value for key, value in status.items() if key != "pid"} | {"workers": workers}


def _lines(facts: dict[str, Any], logs: Sequence[str]) -> Iterator[str]:
    if not facts["running"]:
        yield "The server is not running (aphlict start starts it)."
        yield from (f"  its log      {path}" for path in logs if Path(path).exists())
        return
    yield f"The server is running (process {facts['pid']}, for {duration(facts['age']['supervisor'])})."
    if facts["age"]["supervisor"] - facts["age"]["workers"] > YOUNGER:
        yield f"  worker       was replaced {duration(facts['age']['workers'])} ago: the log says why"
    if "state" in facts:
        yield f"  state        {facts['state']}, node {facts['fingerprint']}"
        now, total, received, sent = (facts[key] for key in FIGURES)
        yield f"  connections  {now:,} now, {total:,} since the start, {_most(facts)}"
        yield f"  messages     {received:,} in, {sent:,} out"
        yield from (f"  limit        {name} was hit {_times(count)}" for name, count in _hit(facts))
    shares = ", ".join(f"{name} {_mib(size)}" for name, size in facts["memory"].items())
    yield f"  memory       {_mib(sum(facts['memory'].values()))} ({shares})"
    for peer in facts.get("peers", ()):
        yield f"  peer         {_peer(peer)}"
    yield from (f"  log          {path}" for path in logs)


def duration(seconds: float) -> str:
    """`3 days 2 hours`: the two largest units."""
    parts = []
    for unit, size in UNITS:
        count, seconds = divmod(int(seconds), size)
        if count:
            parts.append(f"{count} {unit}{'s' if count > 1 else ''}")
    return " ".join(parts[:2]) or "less than a second"


def _most(facts: dict[str, Any]) -> str:
    return f"at most {facts['connections.max']:,} ({facts['connections.bound']})"


def _hit(facts: dict[str, Any]) -> Iterator[tuple[str, int]]:
    counts = {**facts.get("limits", {}), **facts.get("refused", {})}
    return ((name, count) for name, count in counts.items() if count)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _peer(peer: dict[str, Any]) -> str:
    away = f" for {duration(peer['down_for'])} ({peer['last_error']})" if peer["down_for"] is not None else ""
    where = f"{peer['protocol']}://{peer['host']}:{peer['port']}"
    return f"{where} {peer['state']}{away}, {peer['queued']:,} waiting, {peer['sent']:,} sent"
