"""The results of the doctor's checks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from aphlict.errors import AphlictError


class Verdict(Enum):
    """The result of a check."""

    OK = "ok"
    WARN = "warning"  # works, but perhaps not for every browser, or not for long
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """One line of the report. A warning and a failure have a `code` (docs/troubleshooting.md) and a `remedy`."""

    check: str
    verdict: Verdict
    message: str
    code: str | None = None
    remedy: str = ""


class CheckFailed(AphlictError):
    """A check failed: `str()` says what is wrong, `remedy` what to change."""

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(message, code=code)
        self.remedy = remedy


class Passed:
    """The message of a check that passes."""

    message = ""


class CheckReport:
    """The findings in their order. `on_finding` is called with each of them."""

    def __init__(self, on_finding: Callable[[Finding], None]) -> None:
        self.findings: list[Finding] = []
        self._on_finding = on_finding

    @property
    def first_failure(self) -> Finding | None:
        """The first check that failed. Later failures may result from it."""
        return next((each for each in self.findings if each.verdict is Verdict.FAILED), None)

    @contextmanager
    def check(self, name: str) -> Iterator[Passed]:
        """Add the result of the block. CheckFailed is added as well, and raised again."""
        passed = Passed()
        try:
            yield passed
        except CheckFailed as failed:
            self._add(Finding(name, Verdict.FAILED, str(failed), failed.code, failed.remedy))
            raise
        self._add(Finding(name, Verdict.OK, passed.message))

    def warn(self, name: str, code: str, message: str, remedy: str) -> None:
        """Add a warning."""
        self._add(Finding(name, Verdict.WARN, message, code, remedy))

    def skip(self, name: str, reason: str) -> None:
        """Add a check that was not made."""
        self._add(Finding(name, Verdict.SKIPPED, reason))

    def _add(self, finding: Finding) -> None:
        self.findings.append(finding)
        self._on_finding(finding)
