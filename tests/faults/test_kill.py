"""`kill -9` at every stage of start and stop: what is left is cleaned up, and the next start works."""

import contextlib
import random
import signal
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.support.installation import Installation
from tests.support.waiting import wait_until

DELAYS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)  # seconds: a start takes about half a second


def family(installation: Installation) -> list[psutil.Process]:
    """All processes that work on this configuration."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if str(installation.config) in (process.info["cmdline"] or ())
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


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


def check_that_all_is_well(installation: Installation) -> None:
    """A server can be started, is one, works, and can be stopped; nothing is left."""
    assert installation.run("restart").returncode == 0
    wait_until(lambda: len(family(installation)) == 2, "a supervisor and its worker, and nobody else")
    assert installation.publish({"subscribers": []})[0] == 200
    assert installation.run("stop").returncode == 0
    wait_until(lambda: not family(installation), "all processes to end")
    assert not installation.pidfile.exists()


@pytest.mark.parametrize("delay", DELAYS)
def test_one_process_is_killed_during_start(installation: Installation, delay: float) -> None:
    with begun(installation, "start", delay) as start:
        kill(random.choice(family(installation) or [psutil.Process(start.pid)]))
        start.communicate(timeout=20)
    assert start.returncode in (0, 1, -signal.SIGKILL)
    check_that_all_is_well(installation)


@pytest.mark.parametrize("delay", DELAYS[::2])
def test_all_processes_are_killed_during_start(installation: Installation, delay: float) -> None:
    with begun(installation, "start", delay) as start:
        while left := family(installation):
            for process in left:
                kill(process)
        start.communicate(timeout=20)
    assert installation.run("status").returncode == 1
    check_that_all_is_well(installation)


@pytest.mark.parametrize("victim", ["supervisor", "worker", "stop"])
@pytest.mark.parametrize("delay", [0.2, 0.4, 0.7])
def test_one_process_is_killed_during_stop(installation: Installation, victim: str, delay: float) -> None:
    installation.write(drain_delay=0.5)
    supervisor, worker = installation.start(), installation.worker()
    with begun(installation, "stop", delay) as stop:
        kill({"supervisor": supervisor, "worker": worker, "stop": psutil.Process(stop.pid)}[victim])
        stop.communicate(timeout=20)
    assert stop.returncode in (0, -signal.SIGKILL)
    if stop.returncode == 0 or installation.logged(
        "stopping ("
    ):  # or it was killed before it had asked for that
        wait_until(lambda: not family(installation), "all processes to end")
    check_that_all_is_well(installation)
