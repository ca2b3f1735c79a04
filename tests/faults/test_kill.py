"""`kill -9` at every stage of start and stop: what is left is cleaned up, and the next start works."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.support.installation import Installation
from tests.support.waiting import wait_until

# Who, after how many seconds, with how many workers: a start takes about half a second.
DURING_START = [
    *(("command", delay, 1) for delay in (0.0, 0.2, 0.4)),
    *(("supervisor", delay, 1) for delay in (0.3, 0.5, 0.7)),
    *(("worker", delay, 1) for delay in (0.4, 0.6, 0.8)),
    ("supervisor", 0.6, 2),
    ("worker", 0.6, 2),
]
DURING_STOP = [
    *((victim, delay, 1) for victim in ("supervisor", "worker", "stop") for delay in (0.2, 0.7)),
    ("stop", 0.4, 1),
    ("supervisor", 0.4, 2),
    ("worker", 0.4, 2),
]
PLACES = {"command": 0, "supervisor": 1, "worker": -1}  # among the processes of a start, oldest first


def family(installation: Installation) -> list[psutil.Process]:
    """All processes that work on this configuration, oldest first."""
    found = [
        process
        for process in psutil.process_iter(["cmdline", "status", "create_time", "pid"])
        if str(installation.config) in (process.info["cmdline"] or ())
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]
    return sorted(found, key=lambda process: (process.info["create_time"], process.info["pid"]))


@contextlib.contextmanager
def begun(installation: Installation, command: str, delay: float) -> Iterator["subprocess.Popen[str]"]:
    """A command that has had so much time."""
    with installation.begin(command) as process:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began >= delay)
        yield process


def kill(process: psutil.Process) -> None:
    """Kill one that may be gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def kill_all(installation: Installation) -> None:
    """Kill until nobody is found twice in a row: one that forks and ends at once hides its child from one look."""
    looks = 0
    while looks < 2:
        left = family(installation)
        looks = 0 if left else looks + 1
        for process in left:
            kill(process)


def check_that_all_is_well(installation: Installation, workers: int = 1) -> None:
    """A server can be started, is one, works, and can be stopped; nothing is left."""
    count = 2 if workers == 1 else 2 + workers  # a hub joins several
    assert installation.run("restart").returncode == 0
    wait_until(lambda: len(family(installation)) == count, "a supervisor and its workers, and nobody else")
    assert installation.post({"subscribers": []})[0] == 200
    assert installation.run("stop").returncode == 0
    wait_until(lambda: not family(installation), "all processes to end")
    assert not installation.pidfile.exists()


@pytest.mark.parametrize(("victim", "delay", "workers"), DURING_START)
def test_one_process_is_killed_during_start(
    installation: Installation, victim: str, delay: float, workers: int
) -> None:
    """Before there is a supervisor or a worker, it is who will be."""
    installation.write(workers=workers)
    with begun(installation, "start", delay) as start:
        there = family(installation) or [psutil.Process(start.pid)]
        kill(there[min(PLACES[victim], len(there) - 1)])
        start.communicate(timeout=20)
    assert start.returncode in (0, 1, -signal.SIGKILL)
    check_that_all_is_well(installation, workers)


@pytest.mark.parametrize(("delay", "workers"), [(0.0, 1), (0.2, 1), (0.4, 1), (0.6, 1), (0.6, 2)])
def test_all_processes_are_killed_during_start(
    installation: Installation, delay: float, workers: int
) -> None:
    installation.write(workers=workers)
    with begun(installation, "start", delay) as start:
        kill_all(installation)
        start.communicate(timeout=20)
    assert installation.run("status").returncode == 1
    check_that_all_is_well(installation, workers)


@pytest.mark.parametrize(("victim", "delay", "workers"), DURING_STOP)
def test_one_process_is_killed_during_stop(
    installation: Installation, victim: str, delay: float, workers: int
) -> None:
    """The worker that is killed, of several, is the hub."""
    installation.write(drain_delay=0.5, workers=workers)
    supervisor, worker = installation.start(), installation.worker()
    with begun(installation, "stop", delay) as stop:
        kill({"supervisor": supervisor, "worker": worker, "stop": psutil.Process(stop.pid)}[victim])
        stop.communicate(timeout=20)
    assert stop.returncode in (0, -signal.SIGKILL)
    # or it was killed before it had asked for that
    if stop.returncode == 0 or installation.logged("stopping ("):
        wait_until(lambda: not family(installation), "all processes to end")
    check_that_all_is_well(installation, workers)
