"""The benchmarks run, and no delivery is lost. Times are not checked here."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.support.installation import PROJECT


@pytest.fixture(autouse=True)
def compiler() -> None:
    """A C compiler, or the tests are skipped."""
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler: apt install gcc")


@pytest.mark.parametrize("options", [["events", "20"], ["poll", "20", "--one-channel"]])
def test_streams_and_polls(options: list[str]) -> None:
    command = [sys.executable, "-m", "benchmarks.streams_and_polls", *options]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{options[0]}: 20 waiting, " in done.stdout
    assert ("one message to all: " in done.stdout) == ("--one-channel" in options)


@pytest.mark.timeout(300)
def test_a_small_run() -> None:
    command = [sys.executable, "-m", "benchmarks", "--runs", "1", "--scale", "0.01"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "lost" not in done.stderr
    assert "scaled by 0.01" in done.stdout
    for figure in (
        "floor ",
        "CPU per publish",
        "connect and subscribe",
        "…/status during",
        "reconnect",
        "2 workers",
    ):
        assert figure in done.stdout
    for never in ("refused or dropped", "messages missing or too many"):
        assert re.search(rf"{never} +0\.00 ", done.stdout)
