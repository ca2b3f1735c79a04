"""The commands of a client."""

import json
from typing import Any

import pytest

from aphlict.errors import CommandError
from aphlict.protocol import commands
from aphlict.protocol.commands import Auth, Command, Ping, Replay, Subscribe, Unsubscribe, parse_command


def parse(**fields: Any) -> Command:
    """Parse a command with these members."""
    return parse_command(json.dumps(fields))[0]


def refused(content: str) -> CommandError:
    """The error of an invalid command."""
    with pytest.raises(CommandError) as caught:
        parse_command(content)
    return caught.value


def payload(frame: bytes) -> Any:
    """Decode the JSON in a short frame of the server."""
    assert frame[0] == 0x81
    assert frame[1] == len(frame) - 2
    return json.loads(frame[2:])


# Each command


def test_subscribe() -> None:
    assert parse(command="subscribe", data=["a", "b"]) == Subscribe(("a", "b"))


def test_auth() -> None:
    assert parse(command="auth", data="a.b.c") == Auth("a.b.c")


def test_the_repr_of_auth_omits_the_token() -> None:
    assert "a.b.c" not in f"{parse(command='auth', data='a.b.c')} {Auth('a.b.c')!r}"
    for data in ('"a.b.c', '["a.b.c"]', '{"token": "a.b.c"}', "a.b.c"):
        assert "a.b.c" not in str(refused(f'{{"command": "auth", "data": {data}}}'))


def test_unsubscribe() -> None:
    assert parse(command="unsubscribe", data=["a"]) == Unsubscribe(("a",))


def test_an_empty_list_of_channels() -> None:
    assert parse(command="subscribe", data=[]) == Subscribe(())


def test_duplicate_channels_are_removed() -> None:
    assert parse(command="subscribe", data=["a", "b", "a"]) == Subscribe(("a", "b"))


def test_an_integer_becomes_decimal_text() -> None:
    assert parse(command="subscribe", data=[7, "7", -1, 10**18]) == Subscribe(("7", "-1", str(10**18)))


def test_replay_by_age() -> None:
    assert parse(command="replay", data={"age": 1500}) == Replay(1.5)


@pytest.mark.parametrize("fields", [{}, {"data": None}, {"data": {}}, {"data": {"age": None}}])
def test_replay_goes_back_a_minute_by_default(fields: dict[str, Any]) -> None:
    assert parse(command="replay", **fields) == Replay(60.0)


def test_a_negative_age_is_zero() -> None:
    assert parse(command="replay", data={"age": -5}) == Replay(0.0)


MANY = [str(number) for number in range(1000)]


@pytest.mark.parametrize(
    ("after", "names"), [("x", ("x",)), (7, ("7",)), (["x", 7], ("x", "7")), (MANY, tuple(MANY[-16:]))]
)
def test_replay_after(after: Any, names: tuple[str, ...]) -> None:
    assert parse(command="replay", data={"after": after}) == Replay(60.0, names)


def test_replay_ignores_unknown_members() -> None:
    assert parse(command="replay", data={"age": 1, "more": True}) == Replay(0.001)


@pytest.mark.parametrize("fields", [{}, {"data": None}, {"data": "anything"}, {"data": {"a": [1]}}])
def test_ping_ignores_data(fields: dict[str, Any]) -> None:
    assert parse(command="ping", **fields) == Ping()


def test_a_command_ignores_unknown_members() -> None:
    assert parse(command="ping", more={"a": 1}) == Ping()


# Ids


@pytest.mark.parametrize("id", ["x", 7, 1.5, "", 0])
def test_the_id_is_returned(id: str | float) -> None:
    assert parse_command(json.dumps({"command": "ping", "id": id})) == (Ping(), id)


@pytest.mark.parametrize("text", ['{"command": "ping"}', '{"command": "ping", "id": null}'])
def test_no_id(text: str) -> None:
    assert parse_command(text) == (Ping(), None)


# Invalid commands


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ping",
        "[]",
        "null",
        "7",
        "{",
        '{"command": 7}',
        '{"data": []}',
        '{"command": "dance"}',
        '{"command": "SUBSCRIBE", "data": []}',
        '{"command": "subscribe"}',
        '{"command": "subscribe", "data": null}',
        '{"command": "subscribe", "data": "a"}',
        '{"command": "subscribe", "data": {"a": 1}}',
        '{"command": "subscribe", "data": [null]}',
        '{"command": "subscribe", "data": [["a"]]}',
        '{"command": "subscribe", "data": [1.5]}',
        '{"command": "subscribe", "data": [true]}',
        '{"command": "unsubscribe", "data": 1}',
        '{"command": "replay", "data": 60000}',
        '{"command": "replay", "data": {"age": "old"}}',
        '{"command": "replay", "data": {"age": NaN}}',
        '{"command": "replay", "data": {"after": {}}}',
        '{"command": "ping", "id": []}',
        '{"command": "ping"} {"command": "ping"}',
        '{"command": "ping", "data": ' + "[" * 100_000,
        '{"command": "subscribe", "data": [' + "9" * 5000 + "]}",
    ],
    ids=lambda text: text[:50],
)
def test_invalid_commands(text: str) -> None:
    error = refused(text)
    assert error.id is None
    assert len(str(error)) < 300


@pytest.mark.parametrize(
    "text",
    [
        '{"command": "dance", "id": 7}',
        '{"id": 7}',
        '{"command": 1, "id": 7}',
        '{"command": "subscribe", "data": "a", "id": 7}',
        '{"command": "replay", "data": 1, "id": 7}',
    ],
)
def test_the_id_of_an_invalid_command_is_reported(text: str) -> None:
    assert refused(text).id == 7


def test_a_long_command_name_is_truncated_in_the_reply() -> None:
    assert len(str(refused(json.dumps({"command": "x" * 10_000})))) < 300


# Replies


def test_pong() -> None:
    assert payload(commands.PONG_REPLY) == {"type": "pong"}


def test_ack() -> None:
    assert payload(commands.ack("x")) == {"type": "ack", "id": "x"}


def test_an_ack_may_have_more_members() -> None:
    answer = payload(commands.ack(7, count=3, recovered=False))
    assert answer == {"type": "ack", "id": 7, "count": 3, "recovered": False}


def test_error_reply() -> None:
    error = CommandError("No.")
    assert payload(commands.error_reply(7, error)) == {
        "type": "error",
        "id": 7,
        "status": 400,
        "error": "No.",
        "code": error.code,
    }
    error.channels = ("a", "b")
    assert payload(commands.error_reply(7, error))["channels"] == ["a", "b"]
