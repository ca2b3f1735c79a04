"""What a log or a terminal is given can be printed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aphlict.printable import escape, to_json

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("grüße, 中文 \N{WAVING HAND SIGN}", "grüße, 中文 \N{WAVING HAND SIGN}"),
        ("a\nb\r\t", r"a\x0ab\x0d\x09"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x7f\x85\x9b31m", r"\x7f\x85\x9b31m"),
        ("\u202egnp.exe\u202c \u2066x\u2069 \u200f", r"\u202egnp.exe\u202c \u2066x\u2069 \u200f"),
        ("\u2028\u2029\u200b\ufeff\xad", r"\u2028\u2029\u200b\ufeff\xad"),
        ("\U000e0041\U0010ffff", r"\U000e0041\U0010ffff"),
        ("\udc80", r"\udc80"),
    ],
)
def test_what_cannot_be_printed_is_escaped(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@given(ANY_TEXT)
def test_any_text_becomes_one_printable_line(text: str) -> None:
    assert escape(text).isprintable()


@given(st.dictionaries(ANY_TEXT, ANY_TEXT), st.booleans())
def test_json_stays_the_same_json(value: dict[str, str], ascii_only: bool) -> None:
    text = to_json(value, ascii_only=ascii_only)
    assert text.isprintable()
    assert text.isascii() or not ascii_only
    assert json.loads(text) == value


def test_json_keeps_what_can_be_printed() -> None:
    assert to_json("grüße\x7f\U000e0041") == r'"grüße\u007f\udb40\udc41"'
