"""The PROXY protocol, versions 1 and 2: the header in which a load balancer sends the address of the client.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
"""

import re
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from aphlict.errors import BadProxyHeader
from aphlict.protocol.addresses import unmapped

V1_LIMIT = 107  # bytes, CR LF included (2.1)
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2_HEAD = 16
V2_LIMIT = 4096  # bytes after the head: addresses and TLV fields

_V1_START = b"PROXY "
_V1 = re.compile(
    rb"PROXY (?:UNKNOWN(?: .*)?|(TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (\d{1,5}) (\d{1,5}))"
)  # no line feed anywhere, and no zone in an address: a zone may be any text
_LOCAL, _PROXY = 0, 1
_UNSPECIFIED, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_WITHOUT_ADDRESS = {_UNSPECIFIED, 0x12, 0x22, 0x31, 0x32}  # and datagrams, Unix sockets
_ADDRESS_BYTES = {_TCP4: 12, _TCP6: 36}  # of two addresses and two ports


class ProxyHeader(Struct, frozen=True):
    """A header of `size` bytes. `address`: the client's; None where the header has none. `is_local`: the load
    balancer itself connects, as for a health check."""

    size: int
    address: str | None = None
    is_local: bool = False


def parse_header(data: bytes) -> ProxyHeader | None:
    """Parse the header at the start of data; None while it is incomplete: then all of data belongs to it.

    Raises BadProxyHeader as soon as data cannot become a header.
    """
    if data.startswith(V2_SIGNATURE):
        return _read_v2(data)
    if data.startswith(_V1_START):
        return _read_v1(data)
    if V2_SIGNATURE.startswith(data) or _V1_START.startswith(data):
        return None
    raise BadProxyHeader("it does not start with a PROXY protocol header")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, V1_LIMIT)
    if end < 0:
        if len(data) >= V1_LIMIT or b"\n" in data:
            raise BadProxyHeader("its PROXY protocol header has no end")
        return None
    match = _V1.fullmatch(data[:end])
    if match is None:
        raise BadProxyHeader("its PROXY protocol header of version 1 is malformed")
    family, source, destination, *ports = match.groups()
    if family is None:
        return ProxyHeader(end + 2)
    try:
        address_type = IPv4Address if family == b"TCP4" else IPv6Address
        address = address_type(source.decode())
        address_type(destination.decode())
    except ValueError as error:
        raise BadProxyHeader("its PROXY protocol header has an invalid address") from error
    if any(int(port) > 65535 for port in ports):
        raise BadProxyHeader("its PROXY protocol header has an invalid port")
    return ProxyHeader(end + 2, str(unmapped(address)))


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < V2_HEAD:
        return None
    version, command = data[12] >> 4, data[12] & 0x0F
    length = int.from_bytes(data[14:16], "big")
    if version != 2 or command not in (_LOCAL, _PROXY):
        raise BadProxyHeader("its PROXY protocol header is of an unknown version or command")
    if length > V2_LIMIT:
        raise BadProxyHeader(f"its PROXY protocol header is longer than {V2_LIMIT} bytes")
    size = V2_HEAD + length
    if len(data) < size:
        return None
    if command == _LOCAL:
        return ProxyHeader(size, is_local=True)
    return ProxyHeader(size, _v2_address(data[13], data[V2_HEAD:size]))


def _v2_address(family: int, content: bytes) -> str | None:
    """Return the source address; the TLV fields after the addresses are ignored."""
    if family in _WITHOUT_ADDRESS:
        return None
    if family not in _ADDRESS_BYTES:
        raise BadProxyHeader("its PROXY protocol header is of an unknown family")
    if len(content) < _ADDRESS_BYTES[family]:
        raise BadProxyHeader("its PROXY protocol header is too short for its addresses")
    return str(unmapped(IPv4Address(content[:4]) if family == _TCP4 else IPv6Address(content[:16])))
