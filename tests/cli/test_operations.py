"""docs/operations.md has every line that asks an operator to act, every command and every exit status."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import aphlict
from aphlict import errors
from aphlict.cli import main
from aphlict.cli.main import COMMANDS
from tests.support.installation import PROJECT

MANUAL = (PROJECT / "docs" / "operations.md").read_text()
URGENT = {"warning", "error", "exception"}


def log_lines() -> Iterator[str]:
    """The constant texts of all warnings and errors in the package."""
    for path in Path(aphlict.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log"), attr=level),
                    args=[ast.Constant(value=str(text)), *_],
                ) if level in URGENT and text.replace("%s", "").strip():
                    yield text


@pytest.mark.parametrize("line", sorted(set(log_lines())))
def test_every_line_that_asks_for_action_is_explained(line: str) -> None:
    pieces = re.split(r"%[-.\d]*[a-z]", line)
    constant = next(piece for piece in pieces if len(piece) >= 8).strip(' :;,()"')
    assert constant in MANUAL


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_described(command: str) -> None:
    assert f"| `{command}" in MANUAL


def test_every_exit_status_is_described() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    statuses = {each.exit_status for each in classes if issubclass(each, errors.AphlictError)}
    statuses |= {value for name, value in vars(main).items() if name.isupper() and isinstance(value, int)}
    assert {130, 141} < statuses
    assert [status for status in sorted(statuses) if f"| {status} |" not in MANUAL] == []
