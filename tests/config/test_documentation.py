"""docs/configuration.md says what the table of settings says, and its examples are true."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect

from aphlict.config.descriptions import describe
from aphlict.config.loader import load
from aphlict.config.settings import (
    BYTES_PER_COMMAND,
    CHANNELS_PER_COMMAND,
    ENTRIES_PER_COMMAND,
    QUERY_CHANNELS_PER_COMMAND,
    SUBSCRIPTIONS_PER_COMMAND,
    Limits,
    LogSettings,
    PeerSettings,
    ServerSettings,
    Settings,
)
from aphlict.core.budget import ACCOUNT_BYTES
from aphlict.core.message import CHANNEL_BYTES, MESSAGE_BYTES
from aphlict.core.subscriptions import NON_ASCII_BYTES, SUBSCRIPTION_BYTES, UNATTRIBUTED_SUBSCRIPTIONS
from aphlict.errors import ConfigError
from aphlict.protocol.websocket import PARSER_BYTES
from aphlict.server.write_buffer import CONNECTION_SHARE, FRAME_COST, ITERATOR_COST, REFERENCE_COST
from aphlict.tokens.keys import COSTS_IN_COMMANDS

TEXT = (Path(__file__).resolve().parents[2] / "docs/configuration.md").read_text()

SECTIONS: dict[str, type[Any]] = {
    "Top-level keys": Settings,
    "Servers": ServerSettings,
    "Logs": LogSettings,
    "Cluster": PeerSettings,
    "Limits": Limits,
}
EXAMPLES = re.findall(r"```json\n(.*?)```\n(?:\n```text\n(.*?)\n```)?", TEXT, re.DOTALL)


def rows(section: str) -> dict[str, list[str]]:
    """The cells of a section's table by key: type, default, why."""
    part = TEXT.split(f"\n## {section}\n")[1].split("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:1] == "|"
    ]
    return {key.strip("`"): rest for key, *rest in cells[2:]}


def fields(table: type[Any]) -> dict[str, inspect.Field]:
    """The keys that the section has to list."""
    kind = inspect.type_info(table)
    assert isinstance(kind, inspect.StructType)
    return {
        field.encode_name: field for field in kind.fields if not isinstance(field.type, inspect.StructType)
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_documented_and_no_other(section: str) -> None:
    assert list(rows(section)) == list(fields(SECTIONS[section]))


@pytest.mark.parametrize("section", SECTIONS)
def test_types_are_those_of_the_table(section: str) -> None:
    documented = {key: cells[0] for key, cells in rows(section).items()}
    assert documented == {key: describe(field.type) for key, field in fields(SECTIONS[section]).items()}


@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_are_those_of_the_table(section: str) -> None:
    documented = {key: cells[1].split(" (")[0] for key, cells in rows(section).items()}
    assert documented == {key: show_default(field) for key, field in fields(SECTIONS[section]).items()}


def show_default(field: inspect.Field) -> str:
    return "required" if field.required else f"`{json.dumps(field.default)}`"


@pytest.mark.parametrize(
    ("section", "key"), [(section, key) for section in SECTIONS for key in rows(section) if key != "port"]
)
def test_every_key_has_its_reason(section: str, key: str) -> None:
    assert len(rows(section)[key][2]) > 10


def test_costs_are_those_of_the_program() -> None:
    part = TEXT.split("\n## Memory that connections share\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in part.splitlines() if line.startswith(("| a", "| each"))]
    numbers = [[int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", cost)] for _, cost in rows]
    assert numbers == [
        [FRAME_COST],
        [REFERENCE_COST],
        [ITERATOR_COST, 1013],
        [PARSER_BYTES],
        [],
        [ACCOUNT_BYTES],
        [SUBSCRIPTION_BYTES, NON_ASCII_BYTES],
        [ACCOUNT_BYTES],
        [MESSAGE_BYTES, CHANNEL_BYTES],
    ]
    words = " ".join(part.split())
    assert (
        f"({CONNECTION_SHARE // 1024} KiB of `limits.send_buffer.total`, {UNATTRIBUTED_SUBSCRIPTIONS} subscriptions)"
        in words
    )
    assert f"more than {UNATTRIBUTED_SUBSCRIPTIONS} subscriptions" in words


def test_sizes_that_people_read() -> None:
    units = {"KiB": 1024, "MiB": 1024 * 1024}
    sizes = re.findall(r"`(\d+)` \((\d+) (KiB|MiB)\)", TEXT)
    assert len(sizes) >= 5
    for exact, number, unit in sizes:
        assert int(exact) == int(number) * units[unit]


def test_units_are_those_that_are_charged() -> None:
    documented = [int(units.split()[-1]) for units, *_ in rows("Units").values() if "every" in units]
    assert documented == [
        BYTES_PER_COMMAND,
        CHANNELS_PER_COMMAND,
        QUERY_CHANNELS_PER_COMMAND,
        SUBSCRIPTIONS_PER_COMMAND,
        ENTRIES_PER_COMMAND,
    ]
    [(proofs, _)] = [
        (units, key) for key, (units, *_) in rows("Units").items() if key.startswith("verification")
    ]
    assert [int(number) for number in re.findall(r"\d", proofs.partition(" for")[0])] == list(
        COSTS_IN_COMMANDS.values()
    )


@pytest.mark.parametrize(("text", "sentence"), EXAMPLES)
def test_examples(text: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("aphlict.json")
    path.write_text(text)
    if not sentence:
        assert load(path, files=False).servers
        return
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == sentence


def test_there_are_examples() -> None:
    assert len([sentence for _, sentence in EXAMPLES if sentence]) >= 9
