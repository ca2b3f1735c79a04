"""Steps of the wall clock, forward and back, while a server runs."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.browsing import listening_to, receive
from tests.support.installation import Installation
from tests.support.waiting import wait_until

LIBRARIES = ("/usr/lib", "/usr/local/lib")


@pytest.fixture
def set_clock(installation: Installation, tmp_path: Path) -> Callable[[str], None]:
    """Run a server with a clock of its own: `+3600` is an hour ahead. The monotonic clock is unchanged."""
    library = next((path for each in LIBRARIES for path in Path(each).glob("**/libfaketime.so.1")), None)
    if library is None:
        pytest.skip("libfaketime is not installed")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    faked = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    environment = {**os.environ, **faked, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = installation.run("start", env=environment)
    assert done.returncode == 0, done.stderr

    def set_clock(offset: str) -> None:
        clock.write_text(offset)

    return set_clock


@pytest.mark.parametrize("offsets", [("+3600", "-3600"), ("-3600", "+3600"), ("+90", "-90"), ("+900d", "+0")])
def test_steps_lose_nothing_and_hold_nothing_up(
    installation: Installation, set_clock: Callable[[str], None], offsets: tuple[str, ...]
) -> None:
    def publish(text: str) -> None:
        assert installation.post({"subscribers": ["a"], "uniqueID": text})[0] == 200

    supervisor = installation.supervisor()
    with listening_to(installation.client_port, "a") as browser:
        publish("before")
        for offset in offsets:
            set_clock(offset)
            publish(offset)
        assert [each["uniqueID"] for each in receive(browser, 3)] == ["before", *offsets]
        with listening_to(installation.client_port, "a") as late:
            late.send(json.dumps({"command": "replay", "data": {"age": 60_000}}))
            assert [each["uniqueID"] for each in receive(late, 3)] == ["before", *offsets]
        assert installation.post({"subscribers": ["a"], "uniqueID": "before"})[1]["duplicate"]
    before = supervisor.children()[0]
    before.kill()
    wait_until(lambda: installation.answers() and supervisor.children()[0].pid != before.pid, "a new worker")
    assert installation.run("status").returncode == 0
    assert installation.run("stop").returncode == 0
