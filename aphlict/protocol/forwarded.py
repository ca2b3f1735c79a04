"""X-Forwarded-For: the address of a client behind trusted proxies."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from aphlict.protocol.addresses import Address, unmapped

# An address, in brackets or not, perhaps with a port, which is ignored.
_ENTRY = re.compile(r'"?(?:\[([0-9A-Fa-f:.]+)\](?::\d+)?|([0-9.]+)(?::\d+)?|([0-9A-Fa-f:.]+))"?')


class TrustedProxies:
    """The networks of proxies whose header is trusted."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(each) for each in networks]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def trusts(self, peer: str) -> bool:
        """Whether the other side of a connection is a trusted proxy."""
        address = _parse(peer)
        return address is not None and address in self

    def client_address(self, peer: str, header: str | None) -> str:
        """Return the right-most address that is not a trusted proxy; `peer` is to the right of the header.

        Each proxy appends the address of its own peer, so the header can be trusted from the right up to the first
        untrusted address; a client may have sent the rest. Where all are trusted, or an entry is malformed, the last
        address that was read is the client's.
        """
        address = _parse(peer)
        if not header or address is None or address not in self:
            return peer
        for entry in reversed(header.split(",")):
            if address not in self:
                break
            parsed = _parse(entry.strip())
            if parsed is None:
                break
            address = parsed
        return str(address)


def _parse(text: str) -> Address | None:
    match = _ENTRY.fullmatch(text)
    if match is None:
        return None
    try:
        return unmapped(ip_address(match[1] or match[2] or match[3]))
    except ValueError:
        return None
