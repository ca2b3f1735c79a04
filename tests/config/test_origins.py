"""Which origins an entry of `origins` means, and what is no entry."""

import re

import pytest

from aphlict.config.origins import Origins, read_pattern


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com:443", "https://example.com"),
        ("https://EXAMPLE.com", "https://example.com"),
        ("https://example.com:8443", "https://example.com:8443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
        ("*.example.com", "https://a.example.com"),
        ("*.example.com", "https://a.b.example.com"),
        ("https://*.example.com", "https://a.example.com"),
        ("http://*.example.com:8080", "http://a.example.com:8080"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
def test_what_is_let_in(pattern: str, origin: str) -> None:
    origins = Origins([pattern])
    assert origins.allows(origin)
    assert origins.fields(origin) == {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        ("https://example.com", "http://example.com"),
        ("https://example.com", "https://example.com:8443"),
        ("https://example.com", "https://www.example.com"),
        ("https://example.com", "https://example.com.evil.example"),
        ("https://example.com", "https://example.com, https://example.com"),
        ("https://example.com", "https://example.com/"),
        ("https://example.com", "null"),
        ("https://example.com", ""),
        ("https://example.com", "https://user@example.com"),
        ("*.example.com", "https://example.com"),
        ("*.example.com", "https://evilexample.com"),
        ("*.example.com", "https://.example.com"),
        ("*.example.com", "http://a.example.com"),
        ("*.example.com", "https://a.example.com:8443"),
        ("*.example.com", "https://a.example.com.evil.example"),
        ("*.example.com", "https://evil.example#.example.com"),
        ("*.example.com", "https://evil.example\\.example.com"),
    ],
)
def test_what_is_not(pattern: str, origin: str) -> None:
    origins = Origins([pattern])
    assert not origins.allows(origin)
    assert origins.fields(origin) == {"Vary": "Origin"}


def test_without_entries_all_are_let_in() -> None:
    assert Origins(()).allows("https://anyone.example")
    assert Origins(()).allows("null")
    assert Origins(()).fields("https://anyone.example") == {"Access-Control-Allow-Origin": "*"}


def test_who_is_no_page_is_let_in() -> None:
    assert Origins(["https://example.com"]).allows(None)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("*", "omit the key"),
        ("example.com", "https://example.com or http://example.com"),
        ("https://example.com/", "without a path"),
        ("https://*", "without a path"),
        ("https://a.*.com", "without a path"),
        ("*.[::1]", "without a path"),
        ("https://bücher.example", "xn--"),
        ("null", "https://null or"),
    ],
)
def test_what_is_no_entry(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        read_pattern(pattern)


@pytest.mark.parametrize("pattern", ["https://example.com", "*.example.com", "http://*.example.com:81"])
def test_an_example_is_let_in(pattern: str) -> None:
    assert Origins([pattern]).allows(read_pattern(pattern).example)
