"""Runs the doctor's command."""

import json
from typing import Any, NamedTuple

import pytest

from aphlict.cli.main import main
from tests.support.installation import Installation


class Diagnosis(NamedTuple):
    """The result of the command."""

    status: int
    first_failure: dict[str, str]
    checks: list[dict[str, str]]

    def of(self, check: str) -> list[dict[str, str]]:
        """Return the findings of one check."""
        return [each for each in self.checks if each["check"] == check]

    def verdicts(self, check: str) -> list[str]:
        """Return the verdicts of one check."""
        return [each["verdict"] for each in self.of(check)]

    def expect(self, check: str, code: str, *names: str) -> None:
        """The first failure is that of this check, with this code; message or remedy contain these names."""
        assert self.status == 1, self.checks
        assert (self.first_failure["check"], self.first_failure["code"]) == (check, code), self.first_failure
        _expect_names(self.first_failure, names)

    def expect_warning(self, check: str, code: str, *names: str) -> None:
        """There is no failure, and the last finding of this check is a warning with this code."""
        assert self.status == 0, self.first_failure
        finding = self.of(check)[-1]
        assert (finding["verdict"], finding["code"]) == ("warning", code), finding
        _expect_names(finding, names)


def _expect_names(finding: dict[str, str], names: tuple[str, ...]) -> None:
    text = f"{finding['message']} -> {finding['remedy']}"
    assert [name for name in names if name not in text] == [], text


class Doctor:
    """Runs `aphlict doctor --json`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def examine(self, installation: Installation, *options: str) -> Diagnosis:
        """Examine an installation."""
        self._capsys.readouterr()
        status = main(["doctor", "--config", str(installation.config), "--json", *options])
        output: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        assert output["ok"] is (status == 0)
        return Diagnosis(status, output["first_failure"] or {}, output["checks"])
