"""Access checks on the head of a request: its origin, its host name, and the secret of an admin port."""

import hmac
import re
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from aphlict.config.descriptions import shorten
from aphlict.config.origins import Origins
from aphlict.config.settings import ServerSettings, Settings
from aphlict.errors import CrossSiteRequest, HostNotAllowed, OriginForbidden, Unauthorized
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


class HostNames:
    """The names and addresses under which clients may address this server."""

    def __init__(self, server: ServerSettings, local_names: Collection[str]) -> None:
        self._names = frozenset(map(normalize_host, (*local_names, *server.admin_hosts, server.address)))
        self._known: set[str] = set()  # values of Host that have passed the check

    def accept(self, header: str) -> bool:
        """Whether a `Host` is an address, or a name of this machine or of a private network."""
        if header in self._known:
            return True
        name = host_of(header)
        if name is None or not _is_local(name, self._names):
            return False
        if len(self._known) < MAX_KNOWN_HOSTS:
            self._known.add(header)
        return True


class AdminAccess:
    """Access to one admin port.

    Host names are checked for requests to a loopback address, as a page whose name resolves to it (DNS rebinding) may
    reach a server there; and for all requests if `admin.hosts` is set.
    """

    def __init__(self, server: ServerSettings, host_names: HostNames) -> None:
        self._host_names = host_names
        self._secrets = [secret.encode() for secret in server.secrets]
        self._metrics_secrets = [
            *self._secrets,
            *([server.metrics_secret.encode()] if server.metrics_secret else []),
        ]
        self._checks_all_hosts = bool(server.admin_hosts) or is_loopback(server.address)

    def check(
        self, headers: Mapping[str, str], local_address: Callable[[], str], *, reads_metrics: bool = False
    ) -> None:
        """Check a request. `local_address` returns the address of this server that received it; `reads_metrics`: it
        may have `metrics.secret` instead of `admin.secret`.

        Raises CrossSiteRequest, HostNotAllowed or Unauthorized.
        """
        _check_site(headers)
        host = headers.get("host", "")
        if not self._host_names.accept(host) and (self._checks_all_hosts or is_loopback(local_address())):
            raise HostNotAllowed(
                f"{shorten(host_of(host) or host)} is not known as a name of this server: use its address, or add the"
                " name to 'admin.hosts'"
            )
        secrets = self._metrics_secrets if reads_metrics else self._secrets
        if secrets:
            _check_secret(headers.get("authorization", ""), secrets)


class OriginAccess:
    """Access of web pages to one port. On an admin port, pages have none."""

    def __init__(self, server: ServerSettings, host_names: HostNames) -> None:
        self._host_names = host_names
        self._origins = Origins(server.origins)
        self._is_admin = server.type == "admin"

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Raise OriginForbidden for an `Origin` that is not in `origins`."""
        header = headers.get("origin")
        if not self._origins.allows(header):
            origin = shorten(header or "")
            raise OriginForbidden(
                f"pages of {origin} may not subscribe: 'origins' of this server does not list it",
                f"a page of {origin}",
            )

    def check_page(self, headers: Mapping[str, str]) -> None:
        """As `check_origin`, for a request that browsers also send without `Origin`. Raises OriginForbidden.

        A browser omits `Origin` from a GET to the page's own origin (Fetch, 3.2). The page's host name may have been
        pointed at this server (DNS rebinding): over plain HTTP, where browsers send no `Sec-Fetch-Site`, only `Host`
        shows it.
        """
        self.check_origin(headers)
        if not self._origins or "origin" in headers:
            return
        if headers.get("sec-fetch-site", "none") not in SAME_SITE:
            raise OriginForbidden(
                "requests from pages of other sites must have an 'Origin' header",
                "a page of another site, without 'Origin'",
            )
        header = headers.get("host", "")
        host = host_of(header)
        if (host is None or not self._origins.names(host)) and not self._host_names.accept(header):
            shown = shorten(host or header)
            raise OriginForbidden(
                f"requests without 'Origin' may not address this server as {shown}: 'origins' does not list it",
                f"a request without 'Origin' to {shown}",
            )

    def cors_fields(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the header fields that let pages of an allowed origin read a response; none on an admin port."""
        return {} if self._is_admin else self._origins.fields(headers.get("origin"))


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


def _check_secret(header: str, secrets: Sequence[bytes]) -> None:
    match = _BEARER.fullmatch(header)
    if match is None:
        raise Unauthorized("this admin port requires a secret: send 'Authorization: Bearer SECRET'")
    value = match[1].encode()
    matches = [hmac.compare_digest(value, secret) for secret in secrets]  # all: constant time
    if not any(matches):
        raise Unauthorized("the secret in 'Authorization' is not one of this admin port")


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
