"""The supervisor's workers: what they hold of each other, and what becomes of one that cannot be replaced."""

import psutil

from aphlict.process.pidfile import is_alive
from tests.process.test_lifecycle import accepts
from tests.support.installation import Installation
from tests.support.waiting import wait_until

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
