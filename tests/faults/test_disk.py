"""Full and read-only disks."""

import contextlib
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.faults.powers import fill, mounted
from tests.support.doctor import Doctor
from tests.support.installation import Installation


def is_delivered(installation: Installation, text: str) -> bool:
    """Whether a published message reaches a client."""
    with connect(f"ws://127.0.0.1:{installation.client_port}/") as browser:
        browser.send(json.dumps({"command": "subscribe", "data": ["a"], "id": 1}))
        assert json.loads(browser.recv())["type"] == "ack"
        status, receipt = installation.post({"subscribers": ["a"], "text": text})
        return (status, receipt["matched"]) == (200, 1) and json.loads(browser.recv())["text"] == text


def test_a_full_disk_under_the_log_costs_lines_and_nothing_else(
    installation: Installation, small_disk: Path
) -> None:
    installation.log = small_disk / "aphlict.log"
    installation.write()
    supervisor = installation.start()
    ballast = fill(small_disk)
    fill_page(installation.log)
    supervisor.send_signal(signal.SIGUSR1)
    assert is_delivered(installation, "with a full disk")
    ballast.unlink()
    assert installation.run("stop").returncode == 0
    assert re.search(r"\d lines? w\w+ lost here", installation.log.read_text())


def test_the_doctor_sees_a_full_disk(
    installation: Installation, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor = Doctor(capsys)
    installation.log = small_disk / "aphlict.log"
    installation.write()
    installation.start()
    assert len(doctor.examine(installation).of("files")) == 1
    fill(small_disk)
    doctor.examine(installation).expect_warning("files", "disk_full", str(installation.log))


def fill_page(log: Path) -> None:
    """Fill the last page of a file, which a full disk still leaves it."""
    with log.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\n"):
            pass


def test_a_full_disk_under_the_pidfile_is_told_at_start(small_disk: Path, installation: Installation) -> None:
    installation.pidfile = small_disk / "aphlict.pid"
    installation.write()
    fill(small_disk)
    done = installation.run("start")
    assert done.returncode == 1
    assert f"cannot write the pidfile {installation.pidfile}: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert installation.answers() is None
    (small_disk / "ballast").unlink()
    assert installation.run("start").returncode == 0, "nothing was left behind"


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    """A read-only file system."""
    with mounted(tmp_path / "disk", "ro") as folder:
        yield folder


@pytest.mark.parametrize("what", ["log", "pidfile"])
def test_a_read_only_disk_is_told_at_start(
    installation: Installation, read_only_disk: Path, what: str
) -> None:
    setattr(installation, what, read_only_disk / "file")
    installation.write()
    done = installation.run("start")
    assert done.returncode == 1
    kind = "log file" if what == "log" else what
    assert f"cannot write the {kind} {read_only_disk / 'file'}: Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
    assert installation.answers() is None
