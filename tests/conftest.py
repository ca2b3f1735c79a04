"""What all tests share."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.installation import Installation, installed

pytest_plugins = ["tests.support.skipping"]

# No deadline: the machine may have other work. In CI, the same examples each time: new ones are looked for elsewhere.
settings.register_profile("anywhere", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "anywhere")

# A shell has SIGINT ignored in what it runs in the background, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
# nohup has SIGHUP ignored, which a server in the foreground respects: it would not reload.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_xdist_auto_num_workers() -> int:
    """Run more tests at a time than there are processors (`-n auto`): most tests wait for most of their time."""
    return min(2 * len(os.sched_getaffinity(0)), 16)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """See that nothing that an earlier test left would draw from `random` in the middle of a property test.

    Hypothesis calls that flaky, and it happens rarely: here it fails always. A connection of `websockets.sync` that
    stays open needs `ping_interval=None`.
    """
    if item.get_closest_marker("hypothesis"):
        for thread in [each for each in threading.enumerate() if "keepalive" in each.name]:
            thread.join(timeout=5)  # that of a connection which was closed may be about to end
            assert not thread.is_alive()


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """A server's configuration with free ports; whatever runs of it at the end is killed."""
    with installed(tmp_path) as made:
        yield made
