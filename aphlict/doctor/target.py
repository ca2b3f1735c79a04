"""Where a browser is to connect: the parts of a ws:// or wss:// URL, or a server of the configuration."""

from dataclasses import dataclass, field, replace
from urllib.parse import quote, urlsplit

from aphlict.config.origins import Origins, read_pattern
from aphlict.config.settings import ServerSettings
from aphlict.errors import HandshakeRefused, UsageError
from aphlict.tokens.addresses import take_token
from aphlict.wire.handshake import instance_of

LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- compared with, not bound to
DEFAULT_PORTS = {"ws": 80, "wss": 443}
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
        host = f"[{self.host}]" if ":" in self.host else self.host
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
        return instance_of(self.path.partition("?")[0])

    def page(self, name: str) -> str:
        """The path of a page (status, events, poll) beside the WebSocket."""
        return f"{self.path.partition('?')[0].rstrip('/')}/{name}"


def from_url(url: str) -> Target:
    """Take a URL apart; a token in it is kept where it is not printed. Raises UsageError."""
    try:
        url, token = take_token(url)
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"--url is {url}: {error}") from error
    if parts.scheme in MEANT:
        raise UsageError(f"--url is {url}, expected a WebSocket's: {MEANT[parts.scheme]}://{parts.netloc}…")
    if parts.scheme not in DEFAULT_PORTS or not host:
        raise UsageError(f"--url is {url}, expected ws://HOST/… or wss://HOST/…")
    path = quote(parts.path or "/", safe="/~%:@!$&'()*+,;=") + (f"?{parts.query}" if parts.query else "")
    target = Target(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], path, token=token)
    try:
        _ = target.instance
    except HandshakeRefused as error:
        raise UsageError(f"--url is {url}: {error}") from error
    return target


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
