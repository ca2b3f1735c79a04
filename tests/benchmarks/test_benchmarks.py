"""The benchmark runs, and its load generator counts what it says it counts. No time is judged here."""

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
def test_those_who_wait_are_measured(options: list[str]) -> None:
    command = [sys.executable, "-m", "benchmarks.waiting", *options]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{options[0]}: 20 waiting, " in done.stdout
    assert ("one message to all: " in done.stdout) == ("--one-channel" in options)


@pytest.mark.timeout(300)
def test_a_small_run_prints_every_figure_and_loses_nothing() -> None:
    command = [sys.executable, "-m", "benchmarks", "--runs", "1", "--scale", "0.01"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "lost" not in done.stderr
    assert "A try with 0.01 times the browsers" in done.stdout
    for figure in (
        "floor ",
        "CPU a publish",
        "connect and subscribe",
        "…/status beside",
        "come back",
        "2 workers",
    ):
        assert figure in done.stdout
    for never in ("refused or dropped", "messages missing or too many"):
        assert re.search(rf"{never} +0\.00 ", done.stdout)
