"""X-Forwarded-For behind trusted and untrusted proxies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aphlict.protocol.forwarded import TrustedProxies

PROXIES = TrustedProxies(["10.0.0.0/8", "127.0.0.1", "fd00::/8"])


@pytest.mark.parametrize(
    ("header", "browser"),
    [
        (None, "10.0.0.1"),
        ("", "10.0.0.1"),
        ("203.0.113.9", "203.0.113.9"),
        (" 203.0.113.9 ", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("198.51.100.1,203.0.113.9,10.2.3.4", "203.0.113.9"),
        ("203.0.113.9, fd00::1, 127.0.0.1", "203.0.113.9"),
        ("10.0.0.7, 10.0.0.6", "10.0.0.7"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ('"[2001:DB8::7]:4711"', "2001:db8::7"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
    ],
)
def test_the_rightmost_address_that_is_no_trusted_proxy(header: str | None, browser: str) -> None:
    assert PROXIES.client_address("10.0.0.1", header) == browser


@pytest.mark.parametrize(
    "garbage",
    [
        "unknown",
        "_hidden",
        "localhost",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.256",
        "[::1",
        "::1::2",
        "-",
        " ",
        "1.2.3.4/8",
    ],
)
def test_a_malformed_entry_ends_the_search(garbage: str) -> None:
    assert PROXIES.client_address("10.0.0.1", garbage) == "10.0.0.1"
    assert PROXIES.client_address("10.0.0.1", f"203.0.113.9, {garbage}") == "10.0.0.1"
    assert PROXIES.client_address("10.0.0.1", f"203.0.113.9, {garbage}, 10.0.0.5") == "10.0.0.5"
    assert PROXIES.client_address("10.0.0.1", f"{garbage}, 203.0.113.9") == "203.0.113.9"


def test_the_header_of_an_untrusted_peer_is_ignored() -> None:
    assert PROXIES.client_address("203.0.113.9", "198.51.100.1") == "203.0.113.9"
    assert PROXIES.client_address("203.0.113.9", "10.0.0.1") == "203.0.113.9"
    assert PROXIES.client_address("2001:db8::7", "10.0.0.1") == "2001:db8::7"
    assert PROXIES.client_address("::ffff:203.0.113.9", "10.0.0.1") == "::ffff:203.0.113.9", (
        "as it was counted"
    )


def test_an_ipv4_mapped_peer() -> None:
    assert PROXIES.client_address("::ffff:10.0.0.1", "203.0.113.9") == "203.0.113.9"


def test_a_peer_without_an_address() -> None:
    assert PROXIES.client_address("", "203.0.113.9") == ""


@given(st.text(max_size=100))
def test_any_header_gives_an_address(header: str) -> None:
    PROXIES.client_address("10.0.0.1", header)
