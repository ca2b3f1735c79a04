"""Each rule of RFC 6455, sections 5 and 7.4, for a server."""

from collections.abc import Sequence

import pytest

from aphlict.errors import FrameTooLarge, InvalidUTF8, ProtocolError
from aphlict.protocol import websocket
from aphlict.protocol.websocket import (
    Close,
    FrameParser,
    WSMessage,
    decode_close,
    decode_short_text,
    encode_close,
    encode_frame,
)
from tests.support.frames import BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, TEXT, frame, text

LIMIT = 1000


def read(*pieces: bytes, limit: int = LIMIT) -> list[WSMessage]:
    """Parse these pieces one after the other."""
    reader = FrameParser(limit)
    return [received for piece in pieces for received in reader.feed(piece)]


def refuse(*pieces: bytes, error: type[ProtocolError] = ProtocolError) -> ProtocolError:
    """The error of these pieces."""
    with pytest.raises(error) as caught:
        read(*pieces)
    assert type(caught.value) is error
    return caught.value


# Parsing


def test_a_text_message() -> None:
    assert read(text("grüß Gott")) == [WSMessage(TEXT, "grüß Gott")]


def test_a_binary_message() -> None:
    assert read(frame(b"\x00\xff", BINARY)) == [WSMessage(BINARY, b"\x00\xff")]


def test_an_empty_message() -> None:
    assert read(frame(b"")) == [WSMessage(TEXT, "")]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_every_length_form(size: int) -> None:
    assert read(frame(b"x" * size), limit=70000) == [WSMessage(TEXT, "x" * size)]


@pytest.mark.parametrize("form", [2, 8])
def test_a_longer_length_form_than_necessary_is_accepted(form: int) -> None:
    """5.2 requires the shortest form of the sender, but no check of the receiver."""
    assert read(frame(b"hello", form=form)) == [WSMessage(TEXT, "hello")]


def test_several_frames_in_one_piece() -> None:
    assert read(text("one") + text("two") + frame(b"!", PING)) == [
        WSMessage(TEXT, "one"),
        WSMessage(TEXT, "two"),
        WSMessage(PING, b"!"),
    ]


def test_one_byte_at_a_time() -> None:
    data = text("one") + frame(b"x" * 300, BINARY) + frame(b"", CLOSE)
    assert read(*(data[i : i + 1] for i in range(len(data)))) == read(data)


def test_any_masking_key() -> None:
    for key in (bytes(4), b"\xff" * 4, b"\x00\x01\x02\x03"):
        assert read(frame(b"hello", key=key)) == [WSMessage(TEXT, "hello")]


# Fragments (5.4)


def test_fragments_become_one_message() -> None:
    pieces = (
        frame(b"one ", final=False),
        frame(b"two ", CONTINUATION, final=False),
        frame(b"three", CONTINUATION),
    )
    assert read(*pieces) == [WSMessage(TEXT, "one two three")]
    assert read(b"".join(pieces)) == [WSMessage(TEXT, "one two three")]


def test_empty_fragments() -> None:
    assert read(frame(b"", final=False), frame(b"", CONTINUATION)) == [WSMessage(TEXT, "")]


def test_a_character_may_be_split_between_fragments() -> None:
    data = "€".encode()
    assert read(frame(data[:1], final=False), frame(data[1:], CONTINUATION)) == [WSMessage(TEXT, "€")]


def test_a_control_frame_between_fragments() -> None:
    assert read(frame(b"one", final=False), frame(b"now", PING), frame(b" two", CONTINUATION)) == [
        WSMessage(PING, b"now"),
        WSMessage(TEXT, "one two"),
    ]


def test_a_continuation_without_a_first_frame() -> None:
    refuse(frame(b"x", CONTINUATION))


def test_a_continuation_after_the_message_has_ended() -> None:
    refuse(frame(b"x", final=False), frame(b"y", CONTINUATION), frame(b"z", CONTINUATION))


def test_a_new_message_inside_a_fragmented_one() -> None:
    refuse(frame(b"x", final=False), frame(b"y"))


# Violations (5.1, 5.2, 5.5)


def test_an_unmasked_frame() -> None:
    refuse(frame(b"x", key=None))


@pytest.mark.parametrize("reserved", [1, 2, 4, 7])
def test_a_reserved_bit(reserved: int) -> None:
    refuse(frame(b"x", reserved=reserved))


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_an_unknown_opcode(opcode: int) -> None:
    refuse(frame(b"x", opcode))


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_fragmented_control_frame(opcode: int) -> None:
    refuse(frame(b"", opcode, final=False))


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_control_frame_of_more_than_125_bytes(opcode: int) -> None:
    refuse(frame(b"x" * 126, opcode))


def test_a_control_frame_of_125_bytes() -> None:
    assert read(frame(b"x" * 125, PING)) == [WSMessage(PING, b"x" * 125)]


def test_a_length_with_its_most_significant_bit_set() -> None:
    refuse(bytes((0x81, 0xFF)) + b"\x80" + bytes(7) + KEY)


def test_an_error_in_the_first_byte_is_reported_immediately() -> None:
    refuse(b"\xf1")
    refuse(b"\x83")
    refuse(b"\x80")


# Text (8.1)


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"caf\xe9",
        b"\xe2\x82",
    ],
    ids=["no start byte", "overlong", "surrogate", "past U+10FFFF", "Latin-1", "cut off"],
)
def test_text_that_is_not_utf8(bad: bytes) -> None:
    assert refuse(frame(bad), error=InvalidUTF8).close_code == 1007


def test_invalid_utf8_is_rejected_within_the_frame() -> None:
    refuse(frame(b"\xff" + b"x" * 100)[:7], error=InvalidUTF8)


def test_a_character_cut_off_at_the_end_of_the_last_fragment() -> None:
    refuse(frame(b"\xe2", final=False), frame(b"\x82", CONTINUATION), error=InvalidUTF8)


def test_binary_data_need_not_be_text() -> None:
    assert read(frame(b"\xff", BINARY)) == [WSMessage(BINARY, b"\xff")]


def test_a_message_does_not_affect_the_next() -> None:
    assert read(frame("é".encode()[:1], BINARY), text("é")) == [
        WSMessage(BINARY, b"\xc3"),
        WSMessage(TEXT, "é"),
    ]


# Size (10.4)


def test_a_message_of_exactly_the_limit() -> None:
    assert read(frame(b"x" * LIMIT)) == [WSMessage(TEXT, "x" * LIMIT)]


def test_a_message_beyond_the_limit_is_rejected_by_its_header() -> None:
    error = refuse(frame(b"x" * (LIMIT + 1))[:8], error=FrameTooLarge)
    assert error.close_code == 1009
    assert str(LIMIT) in str(error)


def test_the_limit_covers_all_fragments_together() -> None:
    refuse(frame(b"x" * LIMIT, final=False), frame(b"x", CONTINUATION), error=FrameTooLarge)


def test_messages_before_an_error_are_returned() -> None:
    reader = FrameParser(LIMIT)
    received = reader.feed(text("good") + frame(b"x", 3))
    assert next(received) == WSMessage(TEXT, "good")
    with pytest.raises(ProtocolError):
        next(received)


def test_a_parser_is_idle_between_messages_only() -> None:
    reader = FrameParser(LIMIT)
    for piece, idle in [
        (b"", True),
        (text("x"), True),
        (text("x")[:1], False),
        (text("x")[1:], True),
        (frame(b"x", final=False), False),
        (frame(b"", PING), False),
        (frame(b"", CONTINUATION), True),
    ]:
        list(reader.feed(piece))
        assert reader.is_idle is idle


# decode_short_text


def test_a_single_short_text_frame() -> None:
    assert decode_short_text(text("hello"), LIMIT) == WSMessage(TEXT, "hello")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        text("hello")[:-1],
        text("hello") + b"\x81",
        text("one") + text("two"),
        frame(b"x", BINARY),
        frame(b"x", final=False),
        frame(b"x", PING),
        frame(b"x", key=None),
        frame(b"x", reserved=4),
        frame(b"x" * 126),
        frame(b"x" * 200),
        frame(b"x" * 65536),
        frame(b"x" * (LIMIT + 1)),
    ],
)
def test_other_data_is_left_to_the_parser(data: bytes) -> None:
    assert decode_short_text(data, LIMIT) is None


def test_decode_short_text_enforces_the_limit() -> None:
    assert decode_short_text(text("hello"), 4) is None


def test_decode_short_text_rejects_invalid_utf8() -> None:
    with pytest.raises(InvalidUTF8):
        decode_short_text(frame(b"\xff"), LIMIT)


# Close frames (5.5.1, 7.4)


def close(code: int, reason: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + reason


def test_a_close_frame_may_be_empty() -> None:
    assert decode_close(b"") == Close(1005, "")


def test_a_close_frame_with_code_and_reason() -> None:
    assert decode_close(close(1001, "tschüß".encode())) == Close(1001, "tschüß")


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_allowed_close_codes(code: int) -> None:
    assert decode_close(close(code)).code == code


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_forbidden_close_codes(code: int) -> None:
    with pytest.raises(ProtocolError):
        decode_close(close(code))


def test_a_close_frame_of_one_byte() -> None:
    with pytest.raises(ProtocolError):
        decode_close(b"\x03")


def test_a_reason_that_is_not_utf8() -> None:
    with pytest.raises(InvalidUTF8):
        decode_close(close(1000, b"\xff"))


# Encoding


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, (0x81, 0)),
        (125, (0x81, 125)),
        (126, (0x81, 126, 0, 126)),
        (65535, (0x81, 126, 255, 255)),
        (65536, (0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0)),
    ],
)
def test_an_encoded_frame_is_final_unmasked_and_of_the_shortest_form(size: int, head: Sequence[int]) -> None:
    assert encode_frame(TEXT, b"x" * size) == bytes(head) + b"x" * size


def test_an_encoded_close_frame() -> None:
    assert encode_close(1001, "bye") == bytes((0x88, 5)) + close(1001, b"bye")


def test_a_long_reason_is_truncated_between_characters() -> None:
    made = encode_close(1000, "€" * 50)
    assert len(made) <= 2 + 125
    assert made[1] == len(made) - 2
    assert decode_close(made[2:]) == Close(1000, "€" * 41)


def test_the_names_of_the_opcodes_are_those_of_the_rfc() -> None:
    ours = (
        websocket.CONTINUATION,
        websocket.TEXT,
        websocket.BINARY,
        websocket.CLOSE,
        websocket.PING,
        websocket.PONG,
    )
    assert ours == (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)
