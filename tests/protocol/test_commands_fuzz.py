"""Any text is a command or raises CommandError."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from aphlict.errors import CommandError
from aphlict.protocol.commands import Ping, Replay, Subscribe, Unsubscribe, ack, error_reply, parse_command

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.lists(st.text(st.characters(codec="utf-8"), max_size=8) | st.integers(-(2**63), 2**63), max_size=5)
IDS = st.none() | st.integers(-(2**63), 2**63) | st.text(st.characters(codec="utf-8"), max_size=8)
COMMANDS = st.fixed_dictionaries(
    {},
    optional={
        "command": st.sampled_from(["subscribe", "unsubscribe", "replay", "ping"]) | JSON,
        "data": JSON | NAMES | st.fixed_dictionaries({}, optional={"age": JSON, "after": JSON}),
        "id": JSON,
    },
)


def check(text: str) -> None:
    """Parse a text, and encode a reply."""
    try:
        command, id = parse_command(text)
    except CommandError as error:
        error_reply(error.id, error)
        return
    assert isinstance(command, Subscribe | Unsubscribe | Replay | Ping)
    ack(id)
    if isinstance(command, Replay):
        assert command.age >= 0


@given(st.text())
@settings(max_examples=200)
def test_any_text(text: str) -> None:
    check(text)


@given(JSON | COMMANDS)
@settings(max_examples=400)
def test_any_json(value: object) -> None:
    check(json.dumps(value))


@given(COMMANDS, st.integers(0, 80), st.text(max_size=2))
@settings(max_examples=300)
def test_damaged_commands(value: object, place: int, junk: str) -> None:
    text = json.dumps(value)
    check(text[:place] + junk + text[place + 1 :])


@given(st.sampled_from(["subscribe", "unsubscribe"]), NAMES, IDS, st.booleans())
def test_names_and_id_are_parsed(
    command: str, names: list[str | int], id: str | int | None, ascii: bool
) -> None:
    text = json.dumps({"command": command, "data": names, "id": id}, ensure_ascii=ascii)
    expected = tuple(dict.fromkeys(map(str, names)))
    kind = Subscribe if command == "subscribe" else Unsubscribe
    assert parse_command(text) == (kind(expected), id)
