"""Validation of published messages, and the bytes that subscribers and peers receive."""

import json
from typing import Any

import pytest

from aphlict.config.settings import Limits
from aphlict.core.message import (
    ALPHABET,
    Message,
    decode_body,
    new_unique_id,
    parse_body,
    parse_message,
    random_name,
    read_traceparent,
)
from aphlict.errors import InvalidJSON, InvalidMessage, NameTooLong, NoSubscribers, TooManyChannels

PAST_64_BITS = 2**70


def one(body: bytes | dict[str, Any], instance: str = "default") -> Message:
    """The message of a body that is a single object."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    messages, many = parse_body(data, instance, lambda: "new")
    assert not many
    assert len(messages) == 1
    return messages[0]


def seen(message: Message, *channels: str) -> dict[str, Any]:
    """What a subscriber of these channels sees."""
    value = json.loads(message.json_for(channels))
    assert isinstance(value, dict)
    return value


# Parsing


def test_an_object() -> None:
    message = one({"subscribers": ["a", "b"], "uniqueID": "x", "text": "hello"}, "acme")
    assert message.instance == "acme"
    assert message.unique_id == "x"
    assert message.channels == ("a", "b")
    assert message.touched == ()


def test_a_message_without_unique_id_gets_one() -> None:
    message = one({"subscribers": ["a"]})
    assert message.unique_id == "new"
    assert seen(message, "a")["uniqueID"] == "new"


def test_null_is_no_unique_id() -> None:
    message = one({"subscribers": [], "uniqueID": None})
    assert message.unique_id == "new"
    assert seen(message)["uniqueID"] == "new"


def test_an_empty_unique_id_is_none() -> None:
    message = one({"subscribers": [], "uniqueID": ""})
    assert message.unique_id == "new"
    assert seen(message)["uniqueID"] == "new"


def test_a_unique_id_of_spaces_is_one() -> None:
    message = one({"subscribers": [], "uniqueID": " "})
    assert message.unique_id == " "
    assert seen(message)["uniqueID"] == " "


def test_a_unique_id_may_be_a_number_and_is_passed_on_unchanged() -> None:
    message = one({"subscribers": [], "uniqueID": 17})
    assert message.unique_id == "17"
    assert seen(message)["uniqueID"] == 17


def test_generated_unique_ids_are_unique() -> None:
    assert len({new_unique_id() for _ in range(1000)}) == 1000


def test_a_random_name() -> None:
    name = random_name(16)
    assert len(name) == 16
    assert set(name) <= set(ALPHABET)
    assert name != random_name(16)


def test_a_channel_may_be_a_number() -> None:
    assert one({"subscribers": [7, "a", "7"]}).channels == ("7", "a")


def test_an_empty_list_of_subscribers_is_valid() -> None:
    assert one({"subscribers": []}).channels == ()


def test_a_list_of_messages() -> None:
    body = [{"subscribers": ["a"], "uniqueID": str(number)} for number in range(3)]
    messages, many = parse_body(json.dumps(body).encode(), "default")
    assert many
    assert [message.unique_id for message in messages] == ["0", "1", "2"]


@pytest.mark.parametrize("body", [b"[]", b" \r\n\t[ ] "])
def test_an_empty_list(body: bytes) -> None:
    assert parse_body(body, "default") == ([], True)


def test_the_channels_of_a_message_are_limited() -> None:
    names = [f"PHID-{n}" for n in range(8193)]
    [message], _ = parse_body(json.dumps({"subscribers": names[1:]}).encode(), "default")
    assert len(message.channels) == 8192
    with pytest.raises(TooManyChannels):
        parse_body(json.dumps({"subscribers": names}).encode(), "default")


def test_a_list_is_valid_as_a_whole() -> None:
    with pytest.raises(NoSubscribers):
        parse_body(b'[{"subscribers": ["a"]}, {}]', "default")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"hello",
        b"null",
        b"7",
        b'"text"',
        b"{",
        b'{"subscribers": ["a"]',
        b'{"subscribers": ["a"]} {}',
        b"[1]",
        b"[[]]",
        b'{"subscribers": ["a"], "text": "\xff"}',
        b"\xff",
        b'\xef\xbb\xbf{"subscribers": []}',
        b'{"subscribers": [], "x": NaN}',
        b'{"subscribers": [], "x": ' + b"[" * 100_000,
        b"[" * 100_000,
        b"\x00",
    ],
    ids=lambda body: repr(body[:40]),
)
def test_invalid_json(body: bytes) -> None:
    with pytest.raises(InvalidJSON) as caught:
        parse_body(body, "default")
    assert caught.value.http_status == 400


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"subscribers": None},
        {"subscribers": "a"},
        {"subscribers": {"a": 1}},
        {"subscribers": [None]},
        {"subscribers": [["a"]]},
        {"subscribers": [1.5]},
        {"subscribers": [True]},
        {"Subscribers": ["a"]},
    ],
    ids=str,
)
def test_subscribers_are_required(body: dict[str, Any]) -> None:
    with pytest.raises(NoSubscribers):
        one(body)


@pytest.mark.parametrize("touched", ["a", {"a": 1}, [1], [None], 7])
def test_touched_is_a_list_of_names(touched: Any) -> None:
    with pytest.raises(InvalidMessage):
        one({"subscribers": [], "touched": touched})


def test_touched_is_limited() -> None:
    assert len(one({"subscribers": [], "touched": ["f" * 64] * 1024}).touched) == 1024
    for touched in (["f"] * 1025, ["f" * 65]):
        with pytest.raises(InvalidMessage):
            one({"subscribers": [], "touched": touched})


@pytest.mark.parametrize("name", [[], {}, 1.5, True])
def test_a_unique_id_is_text(name: Any) -> None:
    with pytest.raises(InvalidMessage):
        one({"subscribers": [], "uniqueID": name})


@pytest.mark.parametrize("name", ["x" * 257, "ü" * 129])
def test_long_names(name: str) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"subscribers": [name]}, "default"),
        ({"subscribers": [], "uniqueID": name}, "default"),
        ({"subscribers": []}, name),
    ]
    for body, instance in cases:
        with pytest.raises(NameTooLong):
            one(body, instance)


@pytest.mark.parametrize("name", ["x" * 256, "ü" * 128])
def test_names_of_256_bytes(name: str) -> None:
    assert one({"subscribers": [name], "uniqueID": name}, name).channels == (name,)


# What a subscriber receives


def test_a_subscriber_sees_the_object_with_its_own_channels() -> None:
    body = {"subscribers": ["a", "b"], "uniqueID": "x", "text": "hello", "more": {"n": [1, None, "ü"]}}
    assert seen(one(body), "b") == {**body, "subscribers": ["b"]}


def test_a_subscriber_does_not_see_touched() -> None:
    assert "touched" not in seen(one({"subscribers": ["a"], "touched": ["f"]}), "a")


def test_values_are_passed_on_unchanged() -> None:
    raw = b'{"subscribers":["a"],"uniqueID":"x","n":1.0,"big":%d,"e":1e2,"s":"\\u00fc\\/"}' % PAST_64_BITS
    text = one(raw).json_for(("a",))
    for part in (b'"n":1.0', b'"big":%d' % PAST_64_BITS, b'"e":1e2', b'"s":"\\u00fc\\/"'):
        assert part in text


def test_the_last_of_duplicate_keys_counts() -> None:
    message = one(b'{"subscribers":["a"],"subscribers":["b"],"uniqueID":"x","uniqueID":"y"}')
    assert message.channels == ("b",)
    assert message.unique_id == "y"
    assert message.json_for(("b",)).count(b"subscribers") == 1


def test_an_escaped_key_is_recognized() -> None:
    message = one(b'{"subscriber\\u0073":["a"],"touche\\u0064":["f"],"uniqueID":"x"}')
    assert message.channels == ("a",)
    assert message.touched == ("f",)
    assert seen(message, "a") == {"uniqueID": "x", "subscribers": ["a"]}


def test_channel_names_are_escaped() -> None:
    name = 'a"b\\c\n\u2028'
    assert seen(one({"subscribers": [name]}), name)["subscribers"] == [name]


def test_a_delivery_has_the_json_in_a_final_text_frame() -> None:
    message = one({"subscribers": ["a"]})
    delivery = message.delivery(("a",))
    assert delivery.ws_frame[0] == 0x81
    assert delivery.ws_frame[2:] == message.json_for(("a",))
    assert (delivery.instance, delivery.unique_id, delivery.channels) == ("default", "new", ("a",))


@pytest.mark.parametrize("size", [0, 1000, 100_000])
def test_a_delivery_has_the_json_of_its_message(size: int) -> None:
    message = one({"subscribers": ["a"], "text": "x" * size})
    assert message.delivery(("a",)).json == message.json_for(("a",))


def test_the_delivery_for_all_channels_is_cached() -> None:
    message = one({"subscribers": ["a", "b"]})
    assert message.delivery(("a", "b")) is message.delivery(("a", "b"))
    assert json.loads(message.delivery(("b",)).json)["subscribers"] == ["b"]
    assert json.loads(message.delivery(("a", "b")).json)["subscribers"] == ["a", "b"]


# What a peer receives


def test_a_peer_receives_all_fields() -> None:
    message = one({"subscribers": ["a", 7], "uniqueID": "x", "text": "hello", "touched": ["f"]})
    assert json.loads(message.json_for_peer(["f", "g"])) == {
        "subscribers": ["a", "7"],
        "uniqueID": "x",
        "text": "hello",
        "touched": ["f", "g"],
    }


def test_a_peer_parses_the_same_message() -> None:
    message = one({"subscribers": ["a"], "text": "hello"})
    again = one(message.json_for_peer(["f"]))
    assert again.unique_id == message.unique_id == "new"
    assert again.json_for(("a",)) == message.json_for(("a",))
    assert again.touched == ("f",)


# Memory


def test_the_memory_size_exceeds_the_text() -> None:
    small, large = one({"subscribers": ["a"]}), one({"subscribers": ["a"], "text": "x" * 1000})
    assert small.memory_size > 500
    assert large.memory_size >= small.memory_size + 2000
    assert large.wire_size >= len(large.json_for_peer([])) - 100


# The trace

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
IDS = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
OTHER_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def traced(field: object = None, header: str | None = None, **more: Any) -> Message:
    """A message with this field, published with this header."""
    given = {} if field is None else {"traceparent": field}
    [fields], _ = decode_body(
        json.dumps({"subscribers": ["a"], **given, **more}).encode(), "default", Limits()
    )
    return parse_message(fields, "default", traceparent=read_traceparent(header))


@pytest.mark.parametrize(
    "value", [TRACE, OTHER_TRACE, f"01-{IDS}-01", f"fe-{IDS}-ff-what comes later".replace(" ", "_")]
)
def test_a_valid_trace_stays_as_it_is(value: str) -> None:
    assert traced(value).traceparent == value
    assert traced(header=value).traceparent == value


@pytest.mark.parametrize(
    "value",
    [
        *("", "x", TRACE.upper(), f" {TRACE}", f"{TRACE} ", f"{TRACE}\n", f"{TRACE}-more", TRACE[:-1]),
        *(
            f"ff-{IDS}-01",
            f"00-{IDS}-0g",
            f"0-{IDS}-01",
            f"01-{IDS}-01-",
            f"01-{IDS}-01x",
            f"{TRACE}, {TRACE}",
        ),
        *(f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{IDS[:32]}-{'0' * 16}-01"),
        f"01-{IDS}-01-{'x' * 201}",
    ],
)
def test_a_malformed_trace_is_passed_on_and_not_used(value: str) -> None:
    assert read_traceparent(value) is None
    for message in (traced(value), traced(value, header=TRACE)):
        assert message.traceparent is None
        assert seen(message, "a")["traceparent"] == value
        assert json.loads(message.json_for_peer(["x"]))["traceparent"] == value
    assert traced(TRACE, header=value).traceparent == TRACE
    assert "traceparent" not in seen(traced(header=value), "a")


@pytest.mark.parametrize("value", [1, True, [TRACE], {"id": TRACE}])
def test_a_trace_that_is_no_text_is_passed_on_and_not_used(value: object) -> None:
    message = traced(value, header=TRACE)
    assert message.traceparent is None
    assert seen(message, "a")["traceparent"] == value


def test_a_trace_that_is_null_is_passed_on_and_not_used() -> None:
    [fields], _ = decode_body(b'{"subscribers": ["a"], "traceparent": null}', "default", Limits())
    message = parse_message(fields, "default", traceparent=TRACE)
    assert message.traceparent is None
    assert seen(message, "a")["traceparent"] is None


def test_the_field_has_precedence_over_the_header() -> None:
    assert traced(TRACE, header=OTHER_TRACE).traceparent == TRACE
    assert traced(header=OTHER_TRACE).traceparent == OTHER_TRACE


def test_subscribers_and_peers_receive_the_trace() -> None:
    message = traced(header=TRACE, text="hello")
    assert seen(message, "a")["traceparent"] == TRACE
    assert json.loads(message.json_for_peer(["x"]))["traceparent"] == TRACE


def test_the_header_of_a_node_between_is_not_the_publishers() -> None:
    assert traced(header=TRACE, touched=["node"]).traceparent is None
    assert traced(OTHER_TRACE, header=TRACE, touched=["node"]).traceparent == OTHER_TRACE
