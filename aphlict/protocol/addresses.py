"""Addresses in text form: in URLs and messages (`host:port`), and one form for IPv4 addresses."""

from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address


def url_host(host: str) -> str:
    """Return a host name or address as in a URL: IPv6 addresses are in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def host_port(host: str, port: int) -> str:
    """Return `host:port` as in a URL or a Host field."""
    return f"{url_host(host)}:{port}"


def unmapped(address: Address) -> Address:
    """Return the IPv4 address in an IPv4-mapped IPv6 address (`::ffff:192.0.2.1`); any other address unchanged.

    A socket that accepts both families reports IPv4 clients in the mapped form.
    """
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
