"""Where a browser is to connect: the parts of a ws:// or wss:// URL, or a server of the configuration."""

import re
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from urllib.parse import SplitResult, quote, urlsplit

from aphlict.config.descriptions import shorten
from aphlict.config.origins import Origins, read_pattern
from aphlict.config.settings import ServerSettings
from aphlict.errors import BadRequest, UsageError
from aphlict.protocol.addresses import url_host
from aphlict.protocol.http import instance_from_path, instance_path
from aphlict.tokens.keys import pop_token_from_url

LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- compared with, not bound to
DEFAULT_PORTS = {"ws": 80, "wss": 443}
EXPECTED = "ws://HOST/… or wss://HOST/…"
MEANT = {"http": "ws", "https": "wss"}


@dataclass(frozen=True)
class Target:
    """A URL taken apart. `server` is set where it is this machine's own server, reached without a proxy."""

    scheme: str
    host: str
    port: int
    path: str
    server: ServerSettings | None = None
    opener: str | None = None  # the origin of the page that connects, where it is not that of the URL
    token: str | None = field(default=None, repr=False)  # to show with every request

    @property
    def tls(self) -> bool:
        """Whether TLS comes first."""
        return self.scheme == "wss"

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = url_host(self.host)
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def origin(self) -> str:
        """The page that a browser would have opened."""
        return self.opener or f"{'https' if self.tls else 'http'}://{self.authority}"

    @property
    def instance(self) -> str:
        """The instance that the path names."""
        return instance_from_path(self.path.partition("?")[0])

    def at_instance(self, name: str) -> "Target":
        """The same for an instance. Raises UsageError where the URL names one already."""
        path, mark, query = self.path.partition("?")
        if "~" in path:
            raise UsageError("--url names an instance already (after its ~): leave --instance away")
        return replace(self, path=f"{path.rstrip('/')}/{instance_path(name)}{mark}{query}")

    def page(self, name: str) -> str:
        """The path of a page (status, events, poll) beside the WebSocket."""
        return f"{self.path.partition('?')[0].rstrip('/')}/{name}"


def from_url(url: str) -> Target:
    """Take a URL apart; a token in it is kept where it is not printed. Raises UsageError."""
    shown = shorten(re.split("[?#]", url)[0].rpartition("@")[2])  # without a token or a password
    try:
        if not url.isprintable():
            raise ValueError("it has characters that cannot be printed")
        url, token = pop_token_from_url(url)
        parts = urlsplit(url)
        host, port = _host_and_port(parts)
    except ValueError as error:
        raise UsageError(f"--url is {shown}, expected {EXPECTED} ({error})") from error
    if parts.scheme in MEANT:
        meant = MEANT[parts.scheme]
        raise UsageError(f"--url is {shown}, expected a WebSocket's: {meant}://{shorten(parts.netloc)}…")
    if parts.scheme not in DEFAULT_PORTS or not host:
        raise UsageError(f"--url is {shown}, expected {EXPECTED}")
    path = quote(parts.path or "/", safe="/~%:@!$&'()*+,;=") + (f"?{parts.query}" if parts.query else "")
    target = Target(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], path, token=token)
    try:
        _ = target.instance
    except BadRequest as error:
        raise UsageError(f"--url is {shown}: {error}") from error
    return target


def _host_and_port(parts: SplitResult) -> tuple[str, int | None]:
    """What is between the slashes; the port is None where there is none. Raises ValueError."""
    if "@" in parts.netloc:
        raise ValueError("without a user name and a password")
    host = parts.hostname or ""
    if "[" in parts.netloc:
        ip_address(host)  # urlsplit checks it since Python 3.11
    host.encode("idna")  # which raises UnicodeError, a ValueError, where no name can be so
    if any(map(str.isspace, host)):
        raise ValueError("a name has no spaces")
    if parts.port == 0:
        raise ValueError("a port is a whole number from 1 to 65535")
    return host, parts.port


def of_server(server: ServerSettings) -> Target:
    """A client server of this machine, without a proxy."""
    host = LOCAL.get(server.address, server.address)
    return opened_by(None, Target("wss" if server.tls else "ws", host, server.port, "/ws/", server), server)


def opened_by(page: str | None, target: Target, server: ServerSettings) -> Target:
    """The target, with the origin of the page that connects: the one that is given; else that of the URL, if the
    server lets it in; else the first that it does."""
    if page is None and Origins(server.origins).allows(target.origin):
        return target
    return replace(target, opener=page or read_pattern(server.origins[0]).example)


def read_page(origin: str) -> str:
    """Check the origin of a page. Raises UsageError."""
    try:
        is_one = not read_pattern(origin).below
    except ValueError:
        is_one = False
    if not is_one:
        raise UsageError(f"--origin is {origin}, expected what a page's address begins with: https://HOST")
    return origin
