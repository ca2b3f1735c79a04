"""X-Forwarded-For: the address of the browser behind proxies that can be believed."""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

# An address, in brackets or not, and a port that is no concern of ours.
_ENTRY = re.compile(r'"?(?:\[([0-9A-Fa-f:.]+)\](?::\d+)?|([0-9.]+)(?::\d+)?|([0-9A-Fa-f:.]+))"?')


class TrustedProxies:
    """The networks whose word is believed."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(each) for each in networks]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def trusts(self, peer: str) -> bool:
        """Whether this peer may speak for a browser."""
        address = _read(peer)
        return address is not None and address in self

    def client_address(self, peer: str, header: str | None) -> str:
        """The right-most address in the header that is not one of these; `peer` said the right-most of all.

        Where that is none of these, or the header can no longer be understood, whoever spoke last is the browser.
        """
        address = _read(peer)
        if not header or address is None or address not in self:
            return peer
        for entry in reversed(header.split(",")):
            if address not in self:
                break
            said = _read(entry.strip())
            if said is None:
                break
            address = said
        return str(address)


def _read(text: str) -> Address | None:
    match = _ENTRY.fullmatch(text)
    if match is None:
        return None
    try:
        address = ip_address(match[1] or match[2] or match[3])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
