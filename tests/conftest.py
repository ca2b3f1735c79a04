"""Fixtures and settings of all tests."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.support.installation import Installation, installed

pytest_plugins = ["tests.support.skipping"]

# No deadline: the machine may be busy. With CI set, hypothesis uses the same examples each time.
settings.register_profile("anywhere", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "anywhere")

# A shell ignores SIGINT in background jobs; so would every process that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
# nohup ignores SIGHUP. A server in the foreground respects that, and would not reload.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


# With -n, the tests of one group run one after the other, in their order; all others at any time in any process.
GROUPS = {
    "tests/cli/test_first_use.py": "one project",
    "tests/faults/test_resume_chaos.py": "load",
    "tests/faults/test_slow_readers.py": "load",
    "tests/faults/test_storm.py": "load",
    "tests/monitoring/test_alerts.py": "load",
    "tests/monitoring/test_boards.py": "load",
    "tests/server/conformance/test_autobahn.py": "one installation of the suite",
}


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
    """Passes a group of tests, or a single test, to each process that is idle."""

    def _split_scope(self, nodeid: str) -> str:
        return GROUPS.get(nodeid.partition("::")[0], nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduler:
    """Use it for `-n`."""
    return Scheduler(config, log)


def pytest_xdist_auto_num_workers() -> int:
    """Run more tests at a time than there are processors (`-n auto`): most tests wait for most of their time."""
    return min(2 * len(os.sched_getaffinity(0)), 16)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a property test if a thread that an earlier test left may use `random` while it runs.

    Hypothesis would call the test flaky, but rarely. A connection of `websockets.sync` that stays open needs
    `ping_interval=None`.
    """
    if item.get_closest_marker("hypothesis"):
        for thread in [each for each in threading.enumerate() if "keepalive" in each.name]:
            thread.join(timeout=5)  # the thread of a closed connection may be about to end
            assert not thread.is_alive()


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """The configuration of a server with free ports. It is not running; what a test starts of it is killed."""
    with installed(tmp_path) as made:
        yield made
