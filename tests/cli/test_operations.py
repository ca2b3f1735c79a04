"""docs/operations.md has every line of the log with its code, every command and every exit status."""

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import aphlict
from aphlict import errors, log_events
from aphlict.cli import main
from aphlict.cli.main import COMMANDS
from aphlict.log_events import KEYS, LIBRARY, LogEvent
from tests.support.installation import PROJECT

MANUAL = (PROJECT / "docs" / "operations.md").read_text()
EVENTS = {name: value for name, value in vars(log_events).items() if isinstance(value, LogEvent)}
LEVELS = {"debug", "info", "warning", "error", "exception"}
OPTIONAL = {"detail", "traceparent"}
ADDED = {"logger", "code", "error", "at", "more_lines"}  # data that is not in a sentence
OF_LIMITS = {name for name, event in EVENTS.items() if event.code in ("limit_reached", "refused")}
TABLES = ("Log lines", "Lines that report what happens", "Lines of `debug`")
LINE_COLUMN, EVENT_COLUMN = 0, 1


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Every log call of the package, with its level; an empty level where the call passes it."""
    for path in Path(aphlict.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level)) if level in LEVELS:
                    yield level, node
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr="log")):
                    yield "", ast.Call(node.func, node.args[1:], node.keywords)


def all_rows() -> Iterator[list[str]]:
    """The cells of the tables of log lines."""
    for heading in TABLES:
        part = MANUAL.split(f"\n### {heading}\n")[1].split("\n#")[0]
        lines = [line.strip("|") for line in part.splitlines() if line.startswith("|")]
        yield from ([cell.strip() for cell in line.split(" | ")] for line in lines[2:])


def names(argument: ast.expr) -> set[str]:
    """The events that an argument of a log call may be."""
    found = {each.attr for each in ast.walk(argument) if isinstance(each, ast.Attribute)}
    return (found | {each.id for each in ast.walk(argument) if isinstance(each, ast.Name)}) & EVENTS.keys()


def test_every_log_call_passes_an_event_and_its_values() -> None:
    for _, call in log_calls():
        first, *values = call.args
        shown = ast.unparse(call)
        if any(isinstance(each, ast.Starred) for each in values):
            continue  # those of a notice
        events = [EVENTS[name] for name in names(first)]
        assert events or shown.startswith("log.warning(event, "), shown
        assert all(len(event.fields) == len(values) for event in events), shown


def test_every_event_is_used() -> None:
    used: set[str] = set()
    for path in Path(aphlict.__file__).parent.rglob("*.py"):
        if path.name != "log_events.py":
            used |= names(ast.parse(path.read_text()))  # type: ignore[arg-type]
    assert used == EVENTS.keys()


def test_no_data_has_the_name_of_another_key() -> None:
    assert {field for event in EVENTS.values() for field in event.fields} & {*KEYS, *ADDED} == set()


def test_a_code_stands_for_one_event() -> None:
    """Sentences with the same code have the same data, but for details."""
    common = defaultdict[str, list[set[str]]](list)
    for event in EVENTS.values():
        common[event.code].append(set(event.fields))
    assert LIBRARY not in common
    assert all(set.intersection(*fields) for fields in common.values() if len(fields) > 1)


def documented_lines(event: LogEvent) -> set[str]:
    """The lines of the manual in the rows with the event's code."""
    found = [row for row in all_rows() if f"`{event.code}`" in row[EVENT_COLUMN]]
    return {line for row in found for line in re.findall(r"`(.+?)`(?:, |$)", row[LINE_COLUMN])}


def matches(line: str, event: LogEvent) -> bool:
    """Whether a line of the manual is that of an event; it may be cut off with an ellipsis."""
    pieces = [re.escape(piece) for piece in re.split(r"%[-.\d]*[a-z]", event.replace("%%", "%"))]
    names = set(re.findall(r"\u2039(.+?)\u203a", line))
    if line.endswith(" …"):
        shown = re.split(r"\u2039.+?\u203a", line[:-2])
        return re.match(".*".join(map(re.escape, shown)), event) is not None
    return re.fullmatch(".*".join(pieces), line) is not None and names <= set(event.fields)


@pytest.mark.parametrize("name", sorted(EVENTS.keys() - OF_LIMITS))
def test_every_event_is_explained(name: str) -> None:
    lines = documented_lines(EVENTS[name])
    assert any(matches(line, EVENTS[name]) for line in lines), (EVENTS[name], lines)


def test_lines_about_limits_are_explained() -> None:
    part = MANUAL.split("\n### Limits in the log\n")[1]
    for name in OF_LIMITS:
        verb = EVENTS[name].split()[1]
        assert f"\u203a {verb} " in part
        assert f"`{EVENTS[name].code}`" in part


def test_the_manual_has_no_other_codes() -> None:
    documented = {code for row in all_rows() for code in re.findall(r"`(\w+)`", row[EVENT_COLUMN])}
    assert documented <= {event.code for event in EVENTS.values()}


def test_the_objects_in_the_manual_are_lines_of_the_log() -> None:
    part = (PROJECT / "docs/monitoring.md").read_text().split("\n## Structured logs\n")[1].split("\n## ")[0]
    lines = [json.loads(line) for line in part.splitlines() if line.startswith('{"time"')]
    assert len(lines) >= 3
    for line in lines:
        assert tuple(line)[: len(KEYS)] == KEYS
        events = [event for event in EVENTS.values() if event.code == line["event"]]
        data = set(line) - {*KEYS, *ADDED}
        assert any(data == set(event.fields) - OPTIONAL for event in events), line
    keys = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", part, re.MULTILINE))))
    assert keys == {*KEYS, *ADDED, "more_times"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_described(command: str) -> None:
    assert f"| `{command}" in MANUAL


def test_every_exit_status_is_described() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    statuses = {each.exit_status for each in classes if issubclass(each, errors.AphlictError)}
    statuses |= {value for name, value in vars(main).items() if name.isupper() and isinstance(value, int)}
    assert {130, 141} < statuses
    assert [status for status in sorted(statuses) if f"| {status} |" not in MANUAL] == []
