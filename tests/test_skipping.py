"""A skipped test: fine anywhere, but not where everything has to be tested."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.installation import PROJECT

TESTS = """
import pytest

@pytest.fixture
def program():
    pytest.skip("there is no nginx")

def test_that_needs_a_program(program): ...

@pytest.mark.skipif("True", reason="only root may")
def test_that_needs_root(): ...

def test_that_needs_descriptors():
    pytest.skip("there are too few")

@pytest.mark.xfail
def test_that_fails_as_is_expected():
    assert False
"""


@pytest.mark.parametrize(
    ("ci", "end"), [("", "3 skipped, 1 xfailed"), ("true", "1 failed, 1 xfailed, 2 errors")]
)
def test_what_is_skipped_counts_as_failed_in_ci(tmp_path: Path, ci: str, end: str) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.support.skipping",
        "-p",
        "no:cacheprovider",
        "-rs",
    ]
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [*command, "-c", os.devnull, f"--rootdir={tmp_path}", str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert end in done.stdout.splitlines()[-1], done.stdout
    assert "there is no nginx" in done.stdout
    assert "only root may" in done.stdout
    assert "there are too few" in done.stdout
