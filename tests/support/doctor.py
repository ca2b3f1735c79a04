"""`aphlict doctor` and its report."""

import json
from typing import Any, NamedTuple

import pytest

from aphlict.cli.main import main
from tests.support.installation import Installation


class Diagnosis(NamedTuple):
    """Exit status and report of the command."""

    status: int
    first: dict[str, str]
    checks: list[dict[str, str]]

    def of(self, check: str) -> list[dict[str, str]]:
        """The results of a check."""
        return [each for each in self.checks if each["check"] == check]

    def expect(self, check: str, *parts: str) -> None:
        """The first thing that is wrong is this check; sentence and advice hold these parts."""
        assert self.status == 1, self.checks
        assert self.first["check"] == check, self.first
        said = f"{self.first['says']} -> {self.first['change']}"
        for part in parts:
            assert part in said, said


class Doctor:
    """Runs `aphlict doctor --json`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def visit(self, installation: Installation, *options: str) -> Diagnosis:
        """Run it on the configuration of an installation."""
        self._capsys.readouterr()
        status = main(["doctor", "--config", str(installation.config), "--json", *options])
        said: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return Diagnosis(status, said["first"] or {}, said["checks"])
