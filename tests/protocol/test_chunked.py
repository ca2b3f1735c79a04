"""The chunked transfer coding: valid and malformed bodies, in any split."""

import h11
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aphlict.errors import AphlictError, BadRequest, BodyTooLarge
from aphlict.protocol.body import MAX_LINE, MAX_TRAILERS, ChunkedParser
from tests.support.splitting import cut, splits

LIMIT = 100
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def read(*pieces: bytes) -> tuple[bytes, bytes] | None:
    """The body and the data after it; None where it is incomplete."""
    reader = ChunkedParser(LIMIT)
    for place, piece in enumerate(pieces):
        rest = reader.feed(piece)
        if rest is not None:
            return reader.body(), rest + b"".join(pieces[place + 1 :])
    return None


def outcome(*pieces: bytes) -> tuple[bytes, bytes] | str | None:
    """The same, or the type of the error."""
    try:
        return read(*pieces)
    except AphlictError as error:
        return type(error).__name__


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"000\r\n\r\n", b""),
        (b"2\r\n{}\r\n0\r\n\r\n", b"{}"),
        (b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", b"{}"),
        (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
        (b"002\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        (b'2;a=b;c="d e"\r\n{}\r\n0;last\r\n\r\n', b"{}"),
        (b"2 ; a\r\n{}\r\n0\r\n\r\n", b"{}"),
        (b"2\r\n{}\r\n0\r\nX-Sum: 12\r\nHost: evil\r\n\r\n", b"{}"),
        (b"64\r\n" + b"x" * LIMIT + b"\r\n0\r\n\r\n", b"x" * LIMIT),
        (b"0;" + b"x" * (MAX_LINE - 4) + b"\r\n\r\n", b""),
    ],
)
def test_valid_bodies(data: bytes, body: bytes) -> None:
    assert read(data) == (body, b"")
    assert read(data + b"GET /") == (body, b"GET /")
    assert read(*[data[i : i + 1] for i in range(len(data))]) == (body, b"")
    assert all(read(data[:size]) is None for size in range(len(data)))


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"\n",
        b"2\n{}\r\n0\r\n\r\n",
        b"2\r{}\r\n0\r\n\r\n",
        b"2\r\n{}\n0\r\n\r\n",
        b"2\r\n{}\r0\r\n\r\n",
        b"2\r\n{}0\r\n\r\n",
        b"2\r\n{}ab\r\n",
        b"2\r\n{\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\n\r\n",
        b"2\r\n{}\r\n0\r\n\n",
        b"2 \r\n{}",
        b" 2\r\n{}",
        b"+2\r\n{}",
        b"-2\r\n{}",
        b"0x2\r\n{}",
        b"2_0\r\n{}",
        b"zz\r\n",
        b";a\r\n",
        b"2,2\r\n",
        b"2;a\x00b\r\n",
        b"2;a\nb\r\n",
        b"2;a\rb\r\n",
        b"\xb2\r\n",
        b"f" * 16 + b"\r\n",
        b"2;" + b"x" * MAX_LINE,
        b"0" * (MAX_LINE + 1),
        b"0\r\nno field\r\n\r\n",
        b"0\r\n folded: x\r\n\r\n",
        b"0\r\nX : y\r\n\r\n",
        b"0\r\nX: \x00\r\n\r\n",
        b"0\r\nX: " + b"x" * MAX_TRAILERS,
        b"0\r\n" + b"X: y\r\n" * MAX_TRAILERS,
    ],
)
def test_malformed_bodies(data: bytes) -> None:
    with pytest.raises(BadRequest):
        read(data)
    with pytest.raises(BadRequest):
        read(*[data[i : i + 1] for i in range(len(data))])


@pytest.mark.parametrize("data", [b"65\r\n", b"fffffffffffffff\r\n", b"64\r\n" + b"x" * 100 + b"\r\n1\r\n"])
def test_a_chunk_beyond_the_limit_is_rejected_by_its_size(data: bytes) -> None:
    with pytest.raises(BodyTooLarge, match="larger than 100 bytes"):
        read(data)


def encode(chunks: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in [*chunks, b""])


CHUNKS = st.lists(st.binary(min_size=1, max_size=20), max_size=5)
JUNK = st.sampled_from(b"\r\n;0af: ") | st.integers(0, 255)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A chunked body: valid, or damaged in one place."""
    data = encode(draw(CHUNKS))
    if draw(st.booleans()):
        place = draw(st.integers(0, len(data)))
        junk = bytes(draw(st.lists(JUNK, max_size=3)))
        data = data[:place] + junk + data[place + draw(st.integers(0, 2)) :]
    return data


@given(CHUNKS, st.binary(max_size=5), st.data())
def test_any_chunks_in_any_split(chunks: list[bytes], behind: bytes, data: st.DataObject) -> None:
    whole = encode(chunks) + behind
    found = read(*cut(whole, data.draw(splits(len(whole)))))
    assert found == (b"".join(chunks), behind)


@given(bodies() | st.binary(max_size=30), st.data())
@settings(max_examples=300)
def test_a_body_is_parsed_alike_in_any_split(whole: bytes, data: st.DataObject) -> None:
    assert outcome(*cut(whole, data.draw(splits(len(whole))))) == outcome(whole)


@given(bodies())
@settings(max_examples=500)
def test_an_independent_parser_agrees_on_what_is_accepted(data: bytes) -> None:
    found = outcome(data)
    assume(isinstance(found, tuple))
    assert isinstance(found, tuple)
    other = h11.Connection(h11.SERVER)
    other.receive_data(HEAD + data)
    body = b""
    assert isinstance(other.next_event(), h11.Request)
    while isinstance(event := other.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert (body, other.trailing_data[0]) == found
