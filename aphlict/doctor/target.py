"""The URL that a client connects to, from the command line or from the configuration."""

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

LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- compared with, not bound to
DEFAULT_PORTS = {"ws": 80, "wss": 443}
EXPECTED = "ws://HOST/… or wss://HOST/…"
WEBSOCKET_SCHEMES = {"http": "ws", "https": "wss"}


@dataclass(frozen=True)
class Target:
    """A parsed URL. `server` is set if it is a server of this configuration, connected to without a proxy."""

    scheme: str
    host: str
    port: int
    path: str
    server: ServerSettings | None = None
    page_origin: str | None = None  # None: the origin of the URL
    token: str | None = field(default=None, repr=False)  # sent with every request

    @property
    def tls(self) -> bool:
        """Whether the connection uses TLS."""
        return self.scheme == "wss"

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = url_host(self.host)
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL, without a token."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def origin(self) -> str:
        """The origin of the page that would connect."""
        return self.page_origin or f"{'https' if self.tls else 'http'}://{self.authority}"

    @property
    def instance(self) -> str:
        """The instance in the path."""
        return instance_from_path(self.path.partition("?")[0])

    def with_instance(self, name: str) -> "Target":
        """Add an instance to the path. Raises UsageError if there is one."""
        path, mark, query = self.path.partition("?")
        if "~" in path:
            raise UsageError("--url already contains an instance (after ~): remove --instance")
        return replace(self, path=f"{path.rstrip('/')}/{instance_path(name)}{mark}{query}")

    def endpoint(self, name: str) -> str:
        """Return the path of an endpoint (status, events, poll) below that of the WebSocket."""
        return f"{self.path.partition('?')[0].rstrip('/')}/{name}"


def parse_url(url: str) -> Target:
    """Parse `--url`. A token in the query is moved to `Target.token`. Raises UsageError."""
    shown = shorten(re.split("[?#]", url)[0].rpartition("@")[2])  # without a token or a password
    try:
        if not url.isprintable():
            raise ValueError("unprintable characters")
        url, token = pop_token_from_url(url)
        parts = urlsplit(url)
        host, port = _host_and_port(parts)
    except ValueError as error:
        raise UsageError(f"--url is {shown}, expected {EXPECTED} ({error})") from error
    if parts.scheme in WEBSOCKET_SCHEMES:
        scheme = WEBSOCKET_SCHEMES[parts.scheme]
        raise UsageError(f"--url is {shown}, expected {scheme}://{shorten(parts.netloc)}…")
    if parts.scheme not in DEFAULT_PORTS or not host:
        raise UsageError(f"--url is {shown}, expected {EXPECTED}")
    path = quote(parts.path or "/", safe="/~%:@!$&'()*+,;=")
    query = f"?{quote(parts.query, safe=QUERY_SAFE)}" if parts.query else ""
    target = Target(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], path + query, token=token)
    try:
        _ = target.instance
    except BadRequest as error:
        raise UsageError(f"--url is {shown}: {error}") from error
    return target


QUERY_SAFE = "/~%:@!$&'()*+,;=?[]"


def _host_and_port(parts: SplitResult) -> tuple[str, int | None]:
    """Return the host in ASCII, and the port if there is one. Raises ValueError."""
    if "@" in parts.netloc:
        raise ValueError("user name and password are not supported")
    host = parts.hostname or ""
    if "[" in parts.netloc:
        ip_address(host)  # urlsplit checks it since Python 3.11
    ascii_host = host.encode("idna").decode()  # UnicodeError is a ValueError
    if any(map(str.isspace, host)):
        raise ValueError("the host contains a space")
    if parts.port == 0:
        raise ValueError("port 0 is not valid")
    return ascii_host, parts.port


def connect_address(server: ServerSettings) -> str:
    """Return the address at which this machine can connect to a server of its own."""
    return LOOPBACK.get(server.address, server.address)


def local_target(server: ServerSettings) -> Target:
    """Return the target for a client server of this machine, without a proxy."""
    scheme = "wss" if server.tls else "ws"
    return with_origin(None, Target(scheme, connect_address(server), server.port, "/ws/", server), server)


def with_origin(origin: str | None, target: Target, server: ServerSettings) -> Target:
    """Set the origin of the page: `origin`, else that of the URL if the server allows it, else an allowed one."""
    if origin is None and Origins(server.origins).allows(target.origin):
        return target
    return replace(target, page_origin=origin or read_pattern(server.origins[0]).example)


def parse_origin(origin: str) -> str:
    """Check the value of `--origin`. Raises UsageError."""
    try:
        is_origin = not read_pattern(origin).below
    except ValueError:
        is_origin = False
    if not is_origin:
        raise UsageError(f"--origin is {origin}, expected the origin of a page: https://HOST")
    return origin
