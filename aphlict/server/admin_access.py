"""Access to admin ports: no requests of web pages, no foreign host names, and the secret if one is set."""

import hmac
import re
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from aphlict.config.descriptions import shorten
from aphlict.config.settings import ServerSettings, Settings
from aphlict.errors import CrossSiteRequest, HostNotAllowed, Unauthorized
from aphlict.protocol.addresses import unmapped

# Values of Sec-Fetch-Site of a request that no other site's page caused: typed by the user, or of a page of this
# server, which has none.
SAME_SITE = {"none", "same-origin"}

# Names that nobody can register in the public DNS (RFC 6761, RFC 8375, ICANN's reserved ones): an attacker cannot
# let them resolve to this server. A name without a dot is one as well.
PRIVATE_DOMAINS = ("localhost", "localdomain", "local", "internal", "lan", "home.arpa", "test")

MAX_KNOWN_HOSTS = 64  # values of Host that are cached
MAX_LOCAL_ADDRESSES = 64  # addresses of this machine that are cached

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(?::[0-9]*)?")
_BEARER = re.compile(r"bearer +([!-~]+)", re.IGNORECASE)


class AdminAccess:
    """Checks the head of each request to one admin port; on client ports, only `is_known_host` is used.

    `local_names` are the names of this machine. Host names are checked for requests to a loopback address, as a page
    whose name resolves to it (DNS rebinding) may reach a server there; and for all requests if `admin.hosts` is set.
    """

    def __init__(self, server: ServerSettings, local_names: Collection[str]) -> None:
        self._secrets = [secret.encode() for secret in server.secrets]
        self._names = frozenset(map(normalize_host, (*local_names, *server.admin_hosts, server.address)))
        self._checks_all_hosts = bool(server.admin_hosts) or is_loopback(server.address)
        self._known_hosts: set[str] = set()  # values of Host that have passed the check

    def check(self, headers: Mapping[str, str], local_address: Callable[[], str]) -> None:
        """Check a request. `local_address` returns the address of this server that received it.

        Raises CrossSiteRequest, HostNotAllowed or Unauthorized.
        """
        _check_site(headers)
        host = headers.get("host", "")
        if host not in self._known_hosts:
            self._check_host(host, local_address)
        if self._secrets:
            self._check_secret(headers.get("authorization", ""))

    def _check_host(self, header: str, local_address: Callable[[], str]) -> None:
        is_exposed = self._checks_all_hosts or is_loopback(local_address())
        if is_exposed and not self.is_known_host(header):
            raise HostNotAllowed(
                f"{shorten(host_of(header) or header)} is not known as a name of this server: use its address, or"
                " add the name to 'admin.hosts'"
            )

    def is_known_host(self, header: str) -> bool:
        """Whether a `Host` is an address, or a name of this machine or of a private network."""
        if header in self._known_hosts:
            return True
        name = host_of(header)
        if name is None or not _is_local(name, self._names):
            return False
        if len(self._known_hosts) < MAX_KNOWN_HOSTS:
            self._known_hosts.add(header)
        return True

    def _check_secret(self, header: str) -> None:
        match = _BEARER.fullmatch(header)
        if match is None:
            raise Unauthorized("this admin port requires a secret: send 'Authorization: Bearer SECRET'")
        value = match[1].encode()
        matches = [hmac.compare_digest(value, secret) for secret in self._secrets]  # all: constant time
        if not any(matches):
            raise Unauthorized("the secret in 'Authorization' is not one of this admin port")


def _check_site(headers: Mapping[str, str]) -> None:
    """Reject requests that a page caused. Browsers add these headers, and pages cannot remove them (Fetch, 2.2.2)."""
    if "origin" in headers:
        raise CrossSiteRequest(
            f"web pages may not send requests to an admin port: this one is from {shorten(headers['origin'])}"
        )
    if headers.get("sec-fetch-site", "none") not in SAME_SITE:
        raise CrossSiteRequest(
            "web pages may not send requests to an admin port, nor redirect a browser to it"
        )


def host_of(header: str) -> str | None:
    """Return the normalized name or address in a `Host`; None if it is malformed."""
    match = _HOST.fullmatch(header)
    return normalize_host(match[1]) if match else None


def normalize_host(name: str) -> str:
    """Return the form of a name or address in which hosts are compared."""
    return name.strip("[]").casefold().rstrip(".")


def _is_local(name: str, names: Collection[str]) -> bool:
    if name in names or "." not in name or name.endswith(tuple(f".{domain}" for domain in PRIVATE_DOMAINS)):
        return True
    return _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(MAX_LOCAL_ADDRESSES)  # called for each request; to parse an address takes 3 µs
def is_loopback(address: str) -> bool:
    """Whether a server that listens on an address can be reached from this machine only."""
    try:
        parsed = ip_address(address)
        return unmapped(parsed).is_loopback
    except ValueError:
        return normalize_host(address) == "localhost"


HOSTS, RESOLVER = Path("/etc/hosts"), Path("/etc/resolv.conf")


def local_names(settings: Settings) -> frozenset[str]:
    """Return the names that may be this machine's: its host name with and without the search domains, the names in
    /etc/hosts, and those of `cluster`, one of which may be this node's."""
    host = socket.gethostname()
    qualified = [f"{host}.{domain}" for domain in _search_domains()]
    return frozenset([host, *qualified, *_names_in_hosts(), *(peer.host for peer in settings.cluster)])


def _names_in_hosts() -> Iterator[str]:
    for line in _lines(HOSTS):
        yield from line.partition("#")[0].split()[1:]


def _search_domains() -> list[str]:
    """Return the search list. `search` and `domain` exclude each other, and the last line wins (resolv.conf(5))."""
    domains: list[str] = []
    for line in _lines(RESOLVER):
        if line[:1].isspace():  # the keyword must start the line
            continue
        key, *words = line.split() or [""]
        if key == "search":
            domains = words
        elif key == "domain":
            domains = words[:1]
    return domains


def _lines(path: Path) -> list[str]:
    """Return the lines of a file; none if it cannot be read, and fewer names are known."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
