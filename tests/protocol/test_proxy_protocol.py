"""The PROXY protocol, according to its specification."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aphlict.errors import BadProxyHeader
from aphlict.protocol.proxy_protocol import V1_LIMIT, V2_LIMIT, V2_SIGNATURE, ProxyHeader, parse_header
from tests.support.proxied import v2

REST = b"GET / HTTP/1.1\r\n\r\n"
V6 = "2001:db8::7"


def v1(text: str) -> bytes:
    return f"PROXY {text}\r\n".encode()


GOOD = [
    (v1("TCP4 203.0.113.9 192.0.2.1 56324 443"), "203.0.113.9"),
    (v1("TCP4 255.255.255.255 255.255.255.255 65535 65535"), "255.255.255.255"),
    (v1(f"TCP6 {V6} ::1 56324 443"), V6),
    (v1("TCP6 " + "ffff:" * 7 + "ffff " + "ffff:" * 7 + "ffff 65535 65535"), "ffff:" * 7 + "ffff"),
    (v1("TCP6 ::ffff:203.0.113.9 ::1 1 2"), "203.0.113.9"),
    (v1("UNKNOWN"), None),
    (v1("UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535"), None),
    (v2("203.0.113.9"), "203.0.113.9"),
    (v2(V6), V6),
    (v2("203.0.113.9", tlvs=b"\x03\x00\x04\x01\x02\x03\x04\xea\x00\x02\x01x"), "203.0.113.9"),
    (v2(V6, tlvs=b"x" * (V2_LIMIT - 36)), V6),
    (v2(None, family=0x00), None),
    (v2(None, family=0x31, content=b"/tmp/s".ljust(216, b"\0")), None),
]


@pytest.mark.parametrize(("header", "address"), GOOD)
def test_the_source_address_is_the_client(header: bytes, address: str | None) -> None:
    assert parse_header(header + REST) == ProxyHeader(len(header), address)
    assert parse_header(header) == ProxyHeader(len(header), address)


@pytest.mark.parametrize("header", [header for header, _ in GOOD])
def test_an_incomplete_header_is_awaited(header: bytes) -> None:
    for size in range(1, len(header)):
        assert parse_header(header[:size]) is None


@pytest.mark.parametrize("family", [0x00, 0x11, 0x21, 0xFF])
def test_a_local_connection(family: int) -> None:
    header = v2(None, command=0, family=family, content=b"whatever")
    assert parse_header(header + REST) == ProxyHeader(len(header), None, is_local=True)


BAD = [
    REST,
    b"\x16\x03\x01",
    b"PROXX",
    b"proxy TCP4",
    b"\r\n\r\nX",
    v1("TCP4 203.0.113.9 192.0.2.1 56324"),
    v1("TCP4 203.0.113.9  192.0.2.1 56324 443"),
    v1("TCP4 203.0.113.9 192.0.2.1 56324 443 "),
    v1("TCP4 203.0.113.9 192.0.2.1 -1 443"),
    v1("TCP4 203.0.113.9 192.0.2.1 65536 443"),
    v1("TCP4 203.0.113.256 192.0.2.1 1 443"),
    v1("TCP4 0203.0.113.6 192.0.2.1 1 443"),
    v1(f"TCP4 {V6} ::1 1 2"),
    v1("TCP6 203.0.113.9 192.0.2.1 1 2"),
    v1("TCP6 fe80::1%eth0/../x ::1 1 2"),
    v1("UDP4 203.0.113.9 192.0.2.1 1 2"),
    v1(""),
    b"PROXY UNKNOWN\n",
    b"PROXY " + b"x" * V1_LIMIT,
    b"PROXY UNKNOWN" + b"x" * V1_LIMIT + b"\r\n",
    V2_SIGNATURE + bytes([0x11, 0x11, 0, 12]),
    V2_SIGNATURE + bytes([0x22, 0x11, 0, 12]),
    V2_SIGNATURE + bytes([0x21, 0x11, 0xFF, 0xFF]),
    v2(None, family=0x11, content=b"x" * 11),
    v2(None, family=0x21, content=b"x" * 35),
    v2("203.0.113.9", family=0x41),
]


@pytest.mark.parametrize("data", BAD)
def test_malformed_headers_are_rejected(data: bytes) -> None:
    with pytest.raises(BadProxyHeader) as caught:
        parse_header(data)
    assert str(caught.value).startswith("it")


@given(st.binary(max_size=200) | st.binary(max_size=64).map(V2_SIGNATURE.__add__))
def test_any_data_is_parsed_or_rejected(data: bytes) -> None:
    try:
        found = parse_header(data)
    except BadProxyHeader:
        return
    assert found is None or 0 < found.size <= len(data)


def test_the_test_helper_encodes_as_specified() -> None:
    header = v2("203.0.113.9", source_port=0xDC04, destination="192.0.2.1", destination_port=443)
    assert header == (
        b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c"
        + socket.inet_aton("203.0.113.9")
        + socket.inet_aton("192.0.2.1")
        + b"\xdc\x04\x01\xbb"
    )
