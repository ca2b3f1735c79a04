"""Access checks on the head of a request: its origin, its host name, and the secret of an admin port."""

import binascii
import hmac
import re
import socket
from base64 import b64decode
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from aphlict.config.descriptions import shorten
from aphlict.config.origins import DEFAULT_PORTS, Origins
from aphlict.config.settings import ServerSettings, Settings
from aphlict.errors import CrossSiteRequest, HostNotAllowed, OriginForbidden, Unauthorized
from aphlict.protocol.addresses import unmapped

# Values of Sec-Fetch-Site of a request that no other site's page caused: typed by the user, or of a page of this
# server, which has none.
SAME_SITE = {"none", "same-origin"}

# Names that nobody can register in the public DNS (RFC 6761, RFC 8375, ICANN's reserved ones): an attacker cannot
# let them resolve to this server. A name without a dot is one as well.
PRIVATE_DOMAINS = ("localhost", "localdomain", "local", "internal", "lan", "home.arpa", "test")

# Requests of the console's script have this field. They are refused without the challenge of Basic, upon which a
# browser would open its dialog, again for each request.
SCRIPT_FIELD = "x-requested-with"
BEARER_ONLY = tuple(each for each in Unauthorized.challenges if each.startswith("Bearer"))

MAX_KNOWN_HOSTS = 64  # values of Host that are cached
MAX_LOCAL_ADDRESSES = 64  # addresses of this machine that are cached

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(?::[0-9]*)?")
_ORIGIN_PARTS = re.compile(r"(https?)://([^/?#@\s]+)")
_BEARER = re.compile(r"bearer +([!-~]+)", re.IGNORECASE)
_BASIC = re.compile(r"basic +([A-Za-z0-9+/]+={0,2})", re.IGNORECASE)


class HostNames:
    """The names and addresses under which clients may address this server."""

    def __init__(self, server: ServerSettings, local_names: Collection[str]) -> None:
        self._names = frozenset(map(normalize_host, (*local_names, *server.admin_hosts, server.address)))
        self._known: set[str] = set()  # values of Host that have passed the check

    def identify(self, header: str) -> bool:
        """Whether a `Host` is an address, or a name that is known to be this machine's.

        Stricter than `accept`: others in a private network may have names there.
        """
        name = host_of(header)
        return name is not None and (name in self._names or name == "localhost" or _is_address(name))

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
    reach a server there; for requests that browsers make for the console; and for all requests if `admin.hosts` is
    set.

    The only pages that may send requests are those of this port itself, which are the console. A browser may send the
    secret with requests of other pages as well: authentication does not replace these checks.
    """

    def __init__(self, server: ServerSettings, host_names: HostNames) -> None:
        self._host_names = host_names
        self._secrets = [secret.encode() for secret in server.secrets]
        self._metrics_secrets = [
            *self._secrets,
            *([server.metrics_secret.encode()] if server.metrics_secret else []),
        ]
        self._schemes = {"https"} if server.tls else {"http", "https"}  # a proxy may terminate TLS
        self._checks_all_hosts = bool(server.admin_hosts) or is_loopback(server.address)

    def check(
        self,
        headers: Mapping[str, str],
        local_address: Callable[[], str],
        *,
        is_console: bool = False,
        reads_metrics: bool = False,
    ) -> None:
        """Check a request. `local_address` returns the address of this server that received it; `is_console`: it is
        for the console or its data; `reads_metrics`: it may have `metrics.secret` instead of `admin.secret`.

        Raises CrossSiteRequest, HostNotAllowed or Unauthorized.
        """
        self._check_site(headers)
        self._check_host(headers, local_address, is_console=is_console)
        secrets = self._metrics_secrets if reads_metrics else self._secrets
        if secrets:
            try:
                _check_secret(headers.get("authorization", ""), secrets)
            except Unauthorized as error:
                if SCRIPT_FIELD in headers:
                    error.challenges = BEARER_ONLY
                raise

    def _check_site(self, headers: Mapping[str, str]) -> None:
        """Reject requests that a page of another origin caused. Browsers add these headers, and pages cannot remove
        them (Fetch, 2.2.2)."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and not (self._is_own(origin, headers) and site in (None, "same-origin")):
            raise CrossSiteRequest(
                f"web pages may not send requests to an admin port: this one is from {shorten(origin)}"
            )
        if site is not None and site not in SAME_SITE:
            raise CrossSiteRequest(
                "web pages may not send requests to an admin port, nor redirect a browser to it"
            )

    def _is_own(self, origin: str, headers: Mapping[str, str]) -> bool:
        """Whether a page was loaded from this port, by the name or address that its request has as well."""
        match = _ORIGIN_PARTS.fullmatch(origin.casefold())
        if match is None or match[1] not in self._schemes:
            return False
        authority = headers.get("host", "").casefold().removesuffix(f":{DEFAULT_PORTS[match[1]]}")
        return match[2] == authority

    def _check_host(
        self, headers: Mapping[str, str], local_address: Callable[[], str], *, is_console: bool
    ) -> None:
        host, names = headers.get("host", ""), self._host_names
        is_known = names.accept(host) and ("origin" not in headers or names.identify(host))
        is_page = is_console or "origin" in headers
        if not is_known and (is_page or self._checks_all_hosts or is_loopback(local_address())):
            raise HostNotAllowed(
                f"{shorten(host_of(host) or host)} is not known as a name of this server: use its address, or add the"
                " name to 'admin.hosts'"
            )


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


def _check_secret(header: str, secrets: Sequence[bytes]) -> None:
    value = _read_secret(header)
    if value is None:
        raise Unauthorized(
            "this admin port requires a secret: send 'Authorization: Bearer SECRET', or the secret as the password"
            " of any user"
        )
    matches = [hmac.compare_digest(value, secret) for secret in secrets]  # all: constant time
    if not any(matches):
        raise Unauthorized("the secret in 'Authorization' is not one of this admin port")


def _read_secret(header: str) -> bytes | None:
    """Return the secret in an `Authorization`: a token (RFC 6750), or the password of any user (RFC 7617)."""
    if match := _BEARER.fullmatch(header):
        return match[1].encode()
    match = _BASIC.fullmatch(header)
    try:
        _, colon, password = b64decode(match[1], validate=True).partition(b":") if match else (b"", b"", b"")
    except binascii.Error:
        return None
    return password if colon else None


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
