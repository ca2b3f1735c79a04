"""Frames in any split, compared with an independent implementation."""

import codecs
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame as OtherFrame
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side, State

from aphlict.errors import ProtocolError
from aphlict.protocol.websocket import (
    FrameParser,
    WSMessage,
    decode_close,
    decode_short_text,
    encode_close,
    encode_frame,
)
from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame
from tests.support.splitting import cut, splits

LIMIT = 300
KEYS = st.binary(min_size=4, max_size=4)
TEXTS = st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace"))
LONG = st.integers(120, LIMIT + 10).map(lambda size: b"x" * size)
PAYLOADS = st.one_of(TEXTS, TEXTS, st.binary(max_size=140), LONG)
CLOSES = st.one_of(
    st.just(b""),
    st.binary(max_size=3),
    st.builds(lambda code, reason: code.to_bytes(2, "big") + reason, st.integers(0, 65535), TEXTS),
)


class Outcome(NamedTuple):
    """The result of a stream of frames: what was received, up to a close frame, and whether it was rejected."""

    received: list[WSMessage]
    refused: bool


@st.composite
def any_frame(draw: st.DrawFn) -> bytes:
    """A frame: most are valid on their own, though not in every position."""
    opcode = draw(
        st.sampled_from([TEXT] * 6 + [CONTINUATION] * 6 + [BINARY] * 2 + [PING, PONG, CLOSE, 3, 11])
    )
    is_control = bool(opcode & 8)
    payload = draw(CLOSES if opcode == CLOSE else PAYLOADS)
    fault = draw(st.integers(0, 40))
    return frame(
        payload,
        opcode,
        final=draw(st.booleans()) if not is_control or fault == 1 else True,
        key=None if fault == 2 else draw(KEYS),
        reserved=draw(st.integers(1, 7)) if fault == 3 else 0,
        form=8 if fault == 4 and not is_control else None,
    )


@st.composite
def messages(draw: st.DrawFn) -> tuple[WSMessage, list[bytes]]:
    """A message and its frames, with pings between them."""
    kind = draw(st.sampled_from([TEXT, BINARY]))
    payload = draw(TEXTS if kind == TEXT else st.binary(max_size=LIMIT))
    pieces = cut(payload, draw(splits(len(payload))))
    frames = [
        frame(piece, CONTINUATION if i else kind, final=i == len(pieces) - 1, key=draw(KEYS))
        for i, piece in enumerate(pieces)
    ]
    return WSMessage(kind, payload.decode() if kind == TEXT else payload), frames


def read(pieces: list[bytes]) -> Outcome:
    """Parse these with FrameParser."""
    reader, received = FrameParser(LIMIT), list[WSMessage]()
    try:
        for piece in pieces:
            for each in reader.feed(piece):
                if each.opcode == CLOSE:
                    assert isinstance(each.data, bytes)
                    decode_close(each.data)
                    return Outcome([*received, each], refused=False)
                received.append(each)
    except ProtocolError:
        return Outcome(received, refused=True)
    return Outcome(received, refused=False)


class Oracle:
    """Parse the same with websockets, whose protocol layer does not assemble messages."""

    def __init__(self) -> None:
        self.protocol = Protocol(
            Side.SERVER, state=State.OPEN, max_size=None
        )  # websockets counts pings as well
        self.received: list[WSMessage] = []
        self.kind = Opcode.TEXT
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.parts: list[str | bytes] = []
        self.size = 0

    def read(self, data: bytes) -> Outcome:
        """Parse a complete stream."""
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            assert isinstance(event, OtherFrame)
            try:
                self._take(event)
            except ValueError:
                return Outcome(self.received, refused=True)
            if event.opcode is Opcode.CLOSE:
                return Outcome(self.received, refused=False)
        return Outcome(self.received, refused=self.protocol.parser_exc is not None)

    def _take(self, event: OtherFrame) -> None:
        data = bytes(event.data)
        if event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self.received.append(WSMessage(int(event.opcode), data))
            return
        if event.opcode is not Opcode.CONT:
            self.kind = event.opcode
        self.size += len(data)
        if self.size > LIMIT:
            raise ValueError("a message that is too big")
        if self.kind is Opcode.TEXT:
            self.parts.append(self.decoder.decode(data, event.fin))
        else:
            self.parts.append(data)
        if event.fin:
            whole = type(self.parts[0])().join(self.parts)  # type: ignore[arg-type]
            self.parts.clear()
            self.size = 0
            self.received.append(WSMessage(int(self.kind), whole))


@given(st.lists(any_frame(), max_size=8).map(b"".join), st.data())
@settings(max_examples=400)
def test_an_independent_implementation_agrees_on_any_frames(stream: bytes, data: st.DataObject) -> None:
    """Except for a close frame between fragments, which websockets rejects and RFC 6455, 5.4 allows."""
    expected = Oracle().read(stream)
    outcome = read(cut(stream, data.draw(splits(len(stream)))))
    if outcome.received and outcome.received[-1].opcode == CLOSE and expected.refused:
        assert outcome.received[:-1] == expected.received
    else:
        assert outcome == expected


@given(st.lists(messages(), max_size=6), st.data())
@settings(max_examples=200)
def test_messages_in_any_fragments_and_any_split(
    sent: list[tuple[WSMessage, list[bytes]]], data: st.DataObject
) -> None:
    frames: list[bytes] = []
    for _, each in sent:
        for one in each:
            frames += [one, frame(b"!", PING)] if data.draw(st.booleans()) else [one]
    stream = b"".join(frames)
    outcome = read(cut(stream, data.draw(splits(len(stream)))))
    assert not outcome.refused
    assert [each for each in outcome.received if each.opcode != PING] == [message for message, _ in sent]


@given(st.binary(max_size=60), st.data())
@settings(max_examples=300)
def test_any_bytes_are_parsed_alike_in_any_split(stream: bytes, data: st.DataObject) -> None:
    assert read([stream]) == read(cut(stream, data.draw(splits(len(stream)))))


@given(st.one_of(st.binary(max_size=200), any_frame(), TEXTS.map(frame)))
@settings(max_examples=300)
def test_decode_short_text_agrees_with_the_parser(data: bytes) -> None:
    try:
        short = decode_short_text(data, LIMIT)
    except ProtocolError:
        assert read([data]).refused
        return
    if short is not None:
        assert read([data]) == Outcome([short], refused=False)


@given(st.sampled_from([TEXT, BINARY, PING, PONG]), st.binary(max_size=100), st.integers(0, 70_000))
def test_an_independent_implementation_reads_encoded_frames(opcode: int, start: bytes, size: int) -> None:
    payload = start if opcode in (PING, PONG) else (start + bytes(size))
    client = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
    client.receive_data(encode_frame(opcode, payload))
    (event,) = client.events_received()
    assert isinstance(event, OtherFrame)
    assert (event.opcode, event.fin, event.rsv1, bytes(event.data)) == (opcode, True, False, payload)


@given(st.sampled_from([1000, 1001, 1002, 1008, 1013, 4001]), st.text(max_size=200))
def test_an_independent_implementation_reads_encoded_close_frames(code: int, reason: str) -> None:
    reason = reason.encode("utf-8", "replace").decode()
    client = Protocol(Side.CLIENT, state=State.OPEN)
    client.receive_data(encode_close(code, reason))
    assert client.parser_exc is None
    assert client.close_rcvd is not None
    assert client.close_rcvd.code == code
    assert reason.startswith(client.close_rcvd.reason)
