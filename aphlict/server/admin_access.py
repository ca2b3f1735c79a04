"""Who may speak to an admin port: no web page, and where there is a secret, only who knows it."""

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

OWN_SITES = {
    "none",
    "same-origin",
}  # of Sec-Fetch-Site: typed by hand, or a page of this server, which has none

# Names that nobody can register for others to look up (RFC 6761, RFC 8375, ICANN's reserved ones): a stranger
# cannot have them lead here. A name without a dot is one of those too.
PRIVATE = ("localhost", "localdomain", "local", "internal", "lan", "home.arpa", "test")

MOST_HOSTS = 64  # that are remembered
OWN_ADDRESSES = 64  # of a machine that are remembered

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(?::[0-9]*)?")
_BEARER = re.compile(r"bearer +([!-~]+)", re.IGNORECASE)


class AdminAccess:
    """Looks at the head of each request to one admin server, and knows the names of every server.

    `names` are those of this machine. They count for what comes by this machine's own loopback address, which is
    what a page whose name is pointed there is after; and for all where `admin.hosts` adds to them.
    """

    def __init__(self, server: ServerSettings, names: Collection[str]) -> None:
        self._secrets = [secret.encode() for secret in server.secrets]
        self._names = frozenset(map(plain, (*names, *server.admin_hosts, server.address)))
        self._always = bool(server.admin_hosts) or is_loopback(server.address)
        self._good: set[str] = set()  # values of Host that were looked at and found good

    def check(self, headers: Mapping[str, str], came_to: Callable[[], str]) -> None:
        """Look at a request; `came_to` tells the address of ours that it came to.

        Raises CrossSiteRequest, HostNotAllowed or Unauthorized.
        """
        _refuse_pages(headers)
        host = headers.get("host", "")
        if host not in self._good and (self._always or is_loopback(came_to())) and not self.knows(host):
            shown = shorten(host_of(host) or host)
            raise HostNotAllowed(
                f"{shown} is not known as a name of this server: use its address, or add it to 'admin.hosts'"
            )
        if self._secrets:
            self._check_secret(headers.get("authorization", ""))

    def knows(self, header: str) -> bool:
        """Whether a `Host` is an address, or a name of this machine or of a private network."""
        if header in self._good:
            return True
        name = host_of(header)
        if name is None or not _is_own(name, self._names):
            return False
        if len(self._good) < MOST_HOSTS:
            self._good.add(header)
        return True

    def _check_secret(self, header: str) -> None:
        match = _BEARER.fullmatch(header)
        if match is None:
            raise Unauthorized("this admin server has a secret: send it as 'Authorization: Bearer SECRET'")
        shown = match[1].encode()
        same = [hmac.compare_digest(shown, secret) for secret in self._secrets]  # all, whichever it is
        if not any(same):
            raise Unauthorized("the secret in 'Authorization' is not that of this admin server")


def _refuse_pages(headers: Mapping[str, str]) -> None:
    """Browsers say by themselves, and a page cannot keep them from it, when a page is behind a request."""
    if "origin" in headers:
        raise CrossSiteRequest(
            f"web pages may not speak to an admin server, and this is one of {shorten(headers['origin'])}"
        )
    if headers.get("sec-fetch-site", "none") not in OWN_SITES:
        raise CrossSiteRequest("web pages may not speak to an admin server, nor lead a browser to it")


def host_of(header: str) -> str | None:
    """The name or address in a `Host`, as `plain` has it; None where it is malformed."""
    match = _HOST.fullmatch(header)
    return plain(match[1]) if match else None


def _is_own(name: str, names: Collection[str]) -> bool:
    if name in names or "." not in name or name.endswith(tuple(f".{each}" for each in PRIVATE)):
        return True
    return _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def plain(name: str) -> str:
    """A name or address in the form in which they are compared."""
    return name.strip("[]").casefold().rstrip(".")


@lru_cache(OWN_ADDRESSES)  # asked again with every request; taking an address apart costs 3 µs
def is_loopback(address: str) -> bool:
    """Whether only this machine itself can reach a server that listens there."""
    try:
        found = ip_address(address)
        return ((found.version == 6 and found.ipv4_mapped) or found).is_loopback
    except ValueError:
        return plain(address) == "localhost"


HOSTS, RESOLVER = Path("/etc/hosts"), Path("/etc/resolv.conf")


def own_names(settings: Settings) -> frozenset[str]:
    """The host's name, with and without the domains that it searches; what its operator wrote into /etc/hosts; and
    the names of `cluster`, of which one may be this node's."""
    host = socket.gethostname()
    searched = [f"{host}.{domain}" for domain in _domains()]
    return frozenset([host, *searched, *_names_in_hosts(), *(peer.host for peer in settings.cluster)])


def _names_in_hosts() -> Iterator[str]:
    for line in _lines(HOSTS):
        yield from line.partition("#")[0].split()[1:]


def _domains() -> list[str]:
    """The search list: `search` and `domain` exclude each other, and the last line wins (resolv.conf(5))."""
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
    """None where the file cannot be read: then there are fewer names."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
