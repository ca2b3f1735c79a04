"""Any data is a request head or is rejected, and an independent parser agrees."""

import h11
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aphlict.errors import BadRequest
from aphlict.protocol.http import Request, instance_from_path, parse_request
from tests.support.heads import MALFORMED, head
from tests.support.splitting import cut, splits

LIMIT = 2000
VALUES = st.text(st.characters(codec="latin-1"), max_size=12)
NAMES = st.sampled_from(
    ["Host", "host", "Content-Length", "content-length", "Transfer-Encoding", "Connection", "X-Y", "X Y", ""]
)
SEPARATORS = st.sampled_from([": "] * 8 + [":", " : ", ":\t", " ", "", "\r:", ":\r\n "])
ENDS = st.sampled_from(["\r\n"] * 12 + ["\n", "\r", "\r\r\n", "", "\x00\r\n"])
CONTENT = (
    st.sampled_from(["x", "2", "chunked", "0", "close", "2, 2", "+2", "0x2", " 2 ", "identity"]) | VALUES
)
LINES = st.builds(lambda *parts: "".join(parts), NAMES, SEPARATORS, CONTENT, ENDS)
STARTS = st.sampled_from(
    ["GET / HTTP/1.1\r\n"] * 5
    + [
        "POST /?a=b HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        "GET  / HTTP/1.1\r\n",
        "GET / HTTP/1.1\n",
        "GET /\r\n",
    ]
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A head: valid, malformed, or damaged in one place."""
    data = draw(
        st.one_of(
            st.just(head()),
            st.sampled_from([each.data[:LIMIT] for each in MALFORMED]),
            st.builds(
                lambda start, lines: f"{start}Host: x\r\n{''.join(lines)}\r\n".encode("latin-1"),
                STARTS,
                st.lists(LINES, max_size=3),
            ),
        )
    )
    if draw(st.booleans()):
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(st.binary(max_size=2)) + data[place + draw(st.integers(0, 2)) :]
    return data


def read(data: bytes) -> tuple[Request, int] | str | None:
    """The request, or that it was rejected."""
    try:
        return parse_request(data, LIMIT)
    except BadRequest:
        return "refused"


@given(heads() | st.binary(max_size=100))
@settings(max_examples=500)
def test_any_data_is_parsed_or_rejected(data: bytes) -> None:
    found = read(data)
    if isinstance(found, tuple):
        assert data[found[1] - 4 : found[1]] == b"\r\n\r\n"


@given(heads(), st.data())
@settings(max_examples=300)
def test_a_head_is_parsed_alike_in_any_split(whole: bytes, data: st.DataObject) -> None:
    found, so_far = read(b""), b""
    for piece in cut(whole, data.draw(splits(len(whole)))):
        so_far += piece
        found = read(so_far)
        if found is not None:
            break
    assert found == read(whole)


@given(heads())
@settings(max_examples=500)
def test_an_independent_parser_agrees_on_what_is_accepted(data: bytes) -> None:
    """h11 accepts more (except in the target, which it requires to be ASCII), but never with another meaning."""
    found = read(data)
    assume(isinstance(found, tuple))
    assert isinstance(found, tuple)
    request, size = found
    assume(request.target.isascii())
    other = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT * 2)
    other.receive_data(data[:size])
    event = other.next_event()
    assert isinstance(event, h11.Request)
    assert event.method.decode() == request.method
    assert event.target.decode("latin-1") == request.target
    fields: dict[str, str] = {}
    for name, value in event.headers:
        text = value.decode("latin-1")
        key = name.decode()
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    ours = dict(request.headers)
    if "transfer-encoding" in ours:  # h11 lower-cases it
        ours["transfer-encoding"] = ours["transfer-encoding"].lower()
    assert fields == ours


@given(st.text(st.characters(codec="latin-1")))
def test_any_path_has_an_instance_or_is_rejected(path: str) -> None:
    try:
        instance = instance_from_path(path)
    except BadRequest:
        return
    assert instance
    instance.encode()
