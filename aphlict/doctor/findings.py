"""What the doctor found: a list of checks, each with a sentence, and with what to change where it failed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from aphlict.errors import AphlictError


class Verdict(Enum):
    """How a check ended."""

    OK = "ok"
    DOUBT = "doubt"  # works, but may not for everyone or for long
    WRONG = "wrong"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """One line of the list. `change` says what to do about it, where there is something to do."""

    check: str
    verdict: Verdict
    says: str
    change: str = ""


class Trouble(AphlictError):
    """A check failed: `str()` says what is wrong, `change` what to do about it."""

    def __init__(self, says: str, change: str) -> None:
        super().__init__(says)
        self.change = change


class Note:
    """What a check says once it has passed."""

    says = ""


class CheckList:
    """Keeps the findings in order, and hands each on as it comes."""

    def __init__(self, tell: Callable[[Finding], None]) -> None:
        self.findings: list[Finding] = []
        self._tell = tell

    @property
    def first_wrong(self) -> Finding | None:
        """The first check that failed: what to look at first, since the later ones may follow from it."""
        return next((each for each in self.findings if each.verdict is Verdict.WRONG), None)

    @contextmanager
    def check(self, name: str) -> Iterator[Note]:
        """Make a finding of what the block does; a Trouble becomes one too, and goes on to the caller."""
        note = Note()
        try:
            yield note
        except Trouble as trouble:
            self._add(Finding(name, Verdict.WRONG, str(trouble), trouble.change))
            raise
        self._add(Finding(name, Verdict.OK, note.says))

    def doubt(self, name: str, says: str, change: str) -> None:
        """Note what works and should still be looked at."""
        self._add(Finding(name, Verdict.DOUBT, says, change))

    def skip(self, name: str, why: str) -> None:
        """Note what was not checked."""
        self._add(Finding(name, Verdict.SKIPPED, why))

    def _add(self, finding: Finding) -> None:
        self.findings.append(finding)
        self._tell(finding)
