"""Any published body is a list of messages or is rejected; subscribers see only what they may."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from aphlict.core.message import Message, parse_body
from aphlict.errors import InvalidMessage

WORDS = st.text(st.characters(codec="utf-8"), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.lists(st.sampled_from(["a", "b", "c", 7, "7", 'q"\\', "\u2028é"]) | WORDS, max_size=4)
KEYS = st.sampled_from(["subscribers", "touched", "uniqueID", "type", ""]) | WORDS
ANY_OBJECTS = st.dictionaries(KEYS, NAMES | JSON, max_size=5)
OBJECTS = st.builds(
    lambda rest, names, touched, name: {**rest, "subscribers": names, **touched, **name},
    st.dictionaries(WORDS, JSON, max_size=3),
    NAMES,
    st.fixed_dictionaries({}, optional={"touched": st.lists(WORDS, max_size=3)}),
    st.fixed_dictionaries({}, optional={"uniqueID": WORDS | st.none() | st.integers(-(2**63), 2**63)}),
)


def read(body: bytes) -> list[Message] | None:
    """The messages; None where the body was rejected."""
    try:
        messages, _ = parse_body(body, "default", lambda: "new")
    except InvalidMessage:
        return None
    return messages


def check(body: bytes) -> None:
    """An accepted message can be sent to subscribers, and to a peer that parses the same message."""
    for message in read(body) or ():
        assert "touched" not in json.loads(message.json_for(message.channels))
        (again,) = read(message.json_for_peer(message.touched)) or []
        assert (again.unique_id, again.channels, again.touched) == (
            message.unique_id,
            message.channels,
            message.touched,
        )
        assert json.loads(again.json_for(())) == json.loads(message.json_for(()))


@given(st.binary(max_size=50))
@settings(max_examples=200)
def test_any_bytes(body: bytes) -> None:
    check(body)


@given(ANY_OBJECTS | st.lists(ANY_OBJECTS | JSON, max_size=3) | JSON, st.booleans())
@settings(max_examples=400)
def test_any_json(value: object, ascii: bool) -> None:
    check(json.dumps(value, ensure_ascii=ascii).encode())


@given(OBJECTS, st.integers(0, 120), st.binary(max_size=2))
@settings(max_examples=300)
def test_damaged_messages(value: object, place: int, junk: bytes) -> None:
    body = json.dumps(value).encode()
    check(body[:place] + junk + body[place + 1 :])


@given(OBJECTS, st.booleans(), st.data())
@settings(max_examples=300)
def test_a_subscriber_sees_the_object_with_its_channels(
    value: dict[str, Any], ascii: bool, data: st.DataObject
) -> None:
    (message,) = read(json.dumps(value, ensure_ascii=ascii).encode()) or []
    assert message.channels == tuple(dict.fromkeys(map(str, value["subscribers"])))
    held = tuple(name for name in message.channels if data.draw(st.booleans()))
    unique_id = value.get("uniqueID")
    unique_id = None if unique_id == "" else unique_id
    expected = {key: part for key, part in value.items() if key != "touched"}
    expected |= {"subscribers": list(held), "uniqueID": "new" if unique_id is None else unique_id}
    assert json.loads(message.json_for(held)) == expected
    delivery = message.delivery(held)
    assert delivery.ws_frame.endswith(message.json_for(held))
    assert delivery.json == message.json_for(held)
