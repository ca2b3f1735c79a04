"""The supervisor's workers: what they hold of each other, and what becomes of one that cannot be replaced."""

import os
import pwd
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from aphlict.process.pidfile import is_alive
from tests.process.test_lifecycle import accepts
from tests.support.installation import Installation, environment, installed
from tests.support.waiting import wait_until

NONE_LEFT = (
    3  # a limit of descriptors that leaves none to a process which has these: those that are open stay so
)
CROWDED = 1100  # descriptors: more than select(2) takes


def worker_pids(installation: Installation) -> list[int]:
    """Hub and edges, in the order in which they were forked."""
    return sorted(child.pid for child in installation.supervisor().children())


def test_a_hung_worker_does_not_keep_the_others_alive(installation: Installation) -> None:
    installation.write(workers=3)
    supervisor = installation.start()
    *others, last = map(psutil.Process, worker_pids(installation))
    last.suspend()
    try:
        supervisor.kill()
        for other in others:
            wait_until(lambda other=other: not is_alive(other), f"the end of {other.pid}")  # type: ignore[misc]
        assert not accepts(installation.admin_port)
    finally:
        last.kill()
    wait_until(lambda: not accepts(installation.client_port), "the client port to be closed")


def without_descriptors(supervisor: psutil.Process) -> int:
    """Leave a process no descriptor to open; returns the limit that it had."""
    before, hard = resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (NONE_LEFT, hard))
    return before


def failed_starts(installation: Installation, name: str) -> list[str]:
    """The pauses after the starts of a worker that failed for want of something."""
    return re.findall(rf"cannot start the {name}: .+; next try in (\S+) s", installation.log.read_text())


@pytest.mark.parametrize("workers", [1, 2])
def test_without_descriptors_a_worker_is_replaced_later(installation: Installation, workers: int) -> None:
    installation.write(workers=workers)
    supervisor = installation.start()
    *others, worker = map(psutil.Process, worker_pids(installation))
    before = without_descriptors(supervisor)
    worker.kill()
    name = "worker" if workers == 1 else "edge 2"
    wait_until(lambda: len(failed_starts(installation, name)) >= 2, "two failed starts")
    assert failed_starts(installation, name)[:2] == ["0.5", "1"], "after the 0.1 s of the end itself"
    assert all(map(is_alive, others))
    resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (before, before))
    wait_until(lambda: len(supervisor.children()) == len(others) + 1, "the next worker")
    wait_until(installation.answers, "an answer")


@pytest.fixture
def unprivileged() -> Iterator[Installation]:
    """A server of a user who has no other processes: the limit of processes does not count for root."""
    user = pwd.getpwnam("daemon")
    with TemporaryDirectory() as folder:
        os.chown(folder, user.pw_uid, user.pw_gid)
        Path(folder).chmod(0o755)
        with installed(Path(folder), user=user.pw_name) as made:
            yield made


def limit_processes(supervisor: psutil.Process, soft: str) -> None:
    """Set how many processes the user of the supervisor may have, as that user."""
    words = ["prlimit", "--pid", str(supervisor.pid), f"--nproc={soft}:"]
    uid, gid = supervisor.uids().real, supervisor.gids().real
    subprocess.run(words, user=uid, group=gid, extra_groups=[], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_without_processes_a_worker_is_replaced_later(unprivileged: Installation) -> None:
    supervisor = unprivileged.start()
    worker = unprivileged.worker()
    limit_processes(supervisor, "0")
    worker.kill()
    wait_until(lambda: failed_starts(unprivileged, "worker"), "a failed start")
    assert is_alive(supervisor)
    limit_processes(supervisor, "100")
    unprivileged.next_worker(worker)


# Fills every descriptor below that number, then becomes another program.
CROWDING = f"""
import os, sys
while os.dup2(0, os.open(os.devnull, os.O_RDONLY)) < {CROWDED}:
    pass
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_the_supervisor_works_with_high_descriptors(installation: Installation) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * CROWDED:
        pytest.skip("needs more file descriptors")
    words = [sys.executable, "-c", CROWDING, *installation.words("start", "--foreground")]
    with subprocess.Popen(words, env=environment()) as process:
        try:
            installation.worker()
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
