"""Positions as words."""

from hypothesis import given
from hypothesis import strategies as st

from aphlict.core.resume_token import DIGEST, EARLY, REMEMBERED, ResumeToken, digest, read, read_all

digests = st.binary(min_size=DIGEST, max_size=DIGEST)
positions = st.builds(
    ResumeToken,
    origin=st.text("abcXYZ019", min_size=1, max_size=16),
    sequence=st.integers(0, 1 << 59),
    at=st.integers(0, 1 << 43).map(lambda ms: ms / 1000),
    recent=st.lists(digests, max_size=REMEMBERED).map(tuple),
    early=st.lists(digests, max_size=EARLY).map(tuple),
)


@given(positions)
def test_a_position_is_read_as_it_was_written(position: ResumeToken) -> None:
    assert read(position.text()) == position


@given(positions)
def test_a_position_fits_into_a_url_and_a_line(position: ResumeToken) -> None:
    text = position.text()
    assert text.isascii()
    assert not set(text) & set(" ,&+%#?/\"'\\\r\n")
    assert len(text) < 200


@given(st.text())
def test_nothing_else_is_a_position(text: str) -> None:
    assert read(text) is None or text.startswith("~")


@given(st.text("~.abc019-_Z", max_size=40).map("~a.1.2.".__add__))
def test_what_looks_like_a_position_is_read_or_not_but_never_fails(text: str) -> None:
    position = read(text)
    assert position is None or position.sequence == 1


def test_a_name_that_is_no_unicode_text_has_a_digest() -> None:
    assert digest("\ud800") != digest("\ud801")


def test_positions_are_found_among_unique_ids() -> None:
    position = ResumeToken("a", 1, 2.0)
    assert read_all(["PHID", position.text(), "~", ""]) == [position]
