"""The doctor's checks of file descriptors and the clock."""

import subprocess
import time

import psutil
import pytest

from aphlict.doctor.local import check_clock, check_descriptors
from aphlict.doctor.report import CheckFailed, CheckReport, Finding, Verdict


def check(**offsets: float) -> list[Finding]:
    """Return the findings where other clocks are ahead by these seconds."""
    report = CheckReport(lambda _finding: None)
    check_clock(offsets, report)
    return report.findings


def test_clocks_that_agree() -> None:
    [finding] = check(proxy=1.5, peer=-2.0)
    assert finding.verdict is Verdict.OK
    assert "proxy, peer" in finding.message


def test_nothing_to_compare_with() -> None:
    [finding] = check()
    assert finding.verdict is Verdict.OK


def test_a_small_difference() -> None:
    _, finding = check(proxy=120)
    assert (finding.verdict, finding.code) == (Verdict.WARN, "clock_skew")
    assert "120 s behind" in finding.message


def test_a_large_difference() -> None:
    with pytest.raises(CheckFailed, match="7200 s ahead") as failed:
        check(proxy=-7200)
    assert failed.value.code == "clock_wrong"


def test_a_clock_that_was_never_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 86400.0)
    with pytest.raises(CheckFailed) as failed:
        check()
    assert failed.value.code == "clock_wrong"


def test_a_process_without_free_descriptors() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()  # the program has loaded its libraries
        worker = psutil.Process(process.pid)
        worker.rlimit(psutil.RLIMIT_NOFILE, (worker.num_fds(), 64))
        with pytest.raises(CheckFailed, match="3 of 3") as failed:
            check_descriptors([worker], CheckReport(lambda _finding: None))
        assert failed.value.code == "descriptors_exhausted"
        process.kill()
