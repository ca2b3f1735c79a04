"""`kill -9` at every stage of start and stop: the next start cleans up and works."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.support.installation import Installation
from tests.support.waiting import wait_until

# The process, the seconds until it is killed, the number of workers. A start takes about half a second.
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
    """All processes of this configuration, oldest first."""
    found = [
        process
        for process in psutil.process_iter(["cmdline", "status", "create_time", "pid"])
        if str(installation.config) in (process.info["cmdline"] or ())
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]
    return sorted(found, key=lambda process: (process.info["create_time"], process.info["pid"]))


@contextlib.contextmanager
def begun(installation: Installation, command: str, delay: float) -> Iterator["subprocess.Popen[str]"]:
    """Run a command for so long."""
    with installation.begin(command) as process:
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began >= delay)
        yield process


def kill(process: psutil.Process) -> None:
    """Kill a process that may have ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def kill_all(installation: Installation) -> None:
    """Kill until two searches in a row find no process: one that forks and exits can hide its child from a search."""
    looks = 0
    while looks < 2:
        left = family(installation)
        looks = 0 if left else looks + 1
        for process in left:
            kill(process)


def check_that_all_is_well(installation: Installation, workers: int = 1) -> None:
    """The server starts once, works, and stops; no process is left."""
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
    """Before there is a supervisor or a worker, the process that becomes it is killed."""
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
    """Of several workers, the hub is killed."""
    installation.write(drain_delay=0.5, workers=workers)
    supervisor, worker = installation.start(), installation.worker()
    with begun(installation, "stop", delay) as stop:
        kill({"supervisor": supervisor, "worker": worker, "stop": psutil.Process(stop.pid)}[victim])
        stop.communicate(timeout=20)
    assert stop.returncode in (0, -signal.SIGKILL)
    # or it was killed before its request
    if stop.returncode == 0 or installation.logged("stopping ("):
        wait_until(lambda: not family(installation), "all processes to end")
    check_that_all_is_well(installation, workers)
