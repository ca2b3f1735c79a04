"""The encoding of resume tokens."""

from hypothesis import given
from hypothesis import strategies as st

from aphlict.core.message import DIGEST_SIZE, digest
from aphlict.core.resume import MAX_EARLY, MAX_RECENT, ResumeToken

digests = st.binary(min_size=DIGEST_SIZE, max_size=DIGEST_SIZE)
positions = st.builds(
    ResumeToken,
    origin=st.text("abcXYZ019", min_size=1, max_size=16),
    sequence=st.integers(0, 1 << 59),
    at=st.integers(0, 1 << 43).map(lambda ms: ms / 1000),
    recent=st.lists(digests, max_size=MAX_RECENT).map(tuple),
    early=st.lists(digests, max_size=MAX_EARLY).map(tuple),
)


@given(positions)
def test_a_token_survives_encoding(position: ResumeToken) -> None:
    assert ResumeToken.decode(position.encode()) == position


@given(positions)
def test_a_token_fits_into_a_url_and_a_line(position: ResumeToken) -> None:
    text = position.encode()
    assert text.isascii()
    assert not set(text) & set(" ,&+%#?/\"'\\\r\n")
    assert len(text) < 200


@given(st.text())
def test_other_text_is_no_token(text: str) -> None:
    assert ResumeToken.decode(text) is None or text.startswith("~")


@given(st.text("~.abc019-_Z", max_size=40).map("~a.1.2.".__add__))
def test_decoding_never_raises(text: str) -> None:
    position = ResumeToken.decode(text)
    assert position is None or position.sequence == 1


def test_a_unique_id_with_lone_surrogates_has_a_digest() -> None:
    assert digest("\ud800") != digest("\ud801")
