"""File descriptors, and the clock compared with others."""

import subprocess
import time

import psutil
import pytest

from aphlict.doctor.findings import CheckList, Finding, Trouble, Verdict
from aphlict.doctor.machine import check_clock, check_descriptors
from tests.support.waiting import wait_until


def checked(**behind: float) -> list[Finding]:
    """What is found where this machine is so many seconds behind others."""
    checks = CheckList(lambda _finding: None)
    check_clock(behind, checks)
    return checks.findings


def test_clocks_that_agree() -> None:
    [found] = checked(proxy=1.5, peer=-2.0)
    assert found.verdict is Verdict.OK
    assert found.says == "agrees with proxy, peer"


def test_nothing_to_compare_with() -> None:
    [found] = checked()
    assert found.verdict is Verdict.OK


def test_a_clock_that_is_a_little_wrong() -> None:
    _, found = checked(proxy=120)
    assert found.verdict is Verdict.DOUBT
    assert "120 s behind that of proxy" in found.says


def test_a_clock_that_is_very_wrong() -> None:
    with pytest.raises(Trouble, match="7200 s ahead of that of proxy"):
        checked(proxy=-7200)


def test_a_clock_that_was_never_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 86400.0)
    with pytest.raises(Trouble, match="younger than that"):
        checked()


def test_a_process_that_has_used_up_its_descriptors() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        worker = psutil.Process(process.pid)
        wait_until(lambda: worker.num_fds() == 3, "a program that has loaded its libraries")
        worker.rlimit(psutil.RLIMIT_NOFILE, (3, 64))
        with pytest.raises(Trouble, match="has 3 of 3 file descriptors open"):
            check_descriptors([worker], CheckList(lambda _finding: None))
        process.kill()
