"""Addresses in text form."""

from ipaddress import ip_address

import pytest

from aphlict.protocol.addresses import host_port, unmapped, url_host


@pytest.mark.parametrize(
    ("host", "expected"), [("localhost", "localhost"), ("192.0.2.1", "192.0.2.1"), ("::1", "[::1]")]
)
def test_ipv6_addresses_are_in_brackets(host: str, expected: str) -> None:
    assert url_host(host) == expected
    assert host_port(host, 22281) == f"{expected}:22281"


@pytest.mark.parametrize(
    ("address", "expected"),
    [("::ffff:192.0.2.1", "192.0.2.1"), ("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1")],
)
def test_ipv4_mapped_addresses_are_ipv4(address: str, expected: str) -> None:
    assert unmapped(ip_address(address)) == ip_address(expected)
