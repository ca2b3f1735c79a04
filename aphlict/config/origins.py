"""Origins (RFC 6454) whose pages may use a client port."""

import re
from collections.abc import Iterable
from typing import NamedTuple

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_PORT = 65535

_NAME = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://({_NAME}|\[[0-9a-f:.]+\])(?::([0-9]{{1,5}}))?")
_PATTERN = re.compile(rf"(?:([a-z][a-z0-9+.-]*)://)?(\*\.)?({_NAME}|\[[0-9a-f:.]+\])(?::([0-9]{{1,5}}))?")


class Origin(NamedTuple):
    """An origin; `port` is None if the scheme has no default port."""

    scheme: str
    host: str
    port: int | None


class Pattern(NamedTuple):
    """An origin or, with `below`, the origins of all its subdomains."""

    origin: Origin
    below: bool

    @property
    def example(self) -> str:
        """Return an origin that matches."""
        scheme, host, port = self.origin
        host = f"page.{host}" if self.below else host
        return (
            f"{scheme}://{host}" if port in (None, DEFAULT_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"
        )

    def matches(self, origin: Origin) -> bool:
        """Return whether an origin matches."""
        if not self.below:
            return origin == self.origin
        own = self.origin
        return (origin.scheme, origin.port) == (own.scheme, own.port) and self.names(origin.host)

    def names(self, host: str) -> bool:
        """Return whether an origin with this host matches, with any scheme and port."""
        return host.endswith(f".{self.origin.host}") if self.below else host == self.origin.host


def read_pattern(text: str) -> Pattern:
    """Parse an entry of `origins`. Raises ValueError with the reason."""
    if text == "*":
        raise ValueError("to allow all origins, omit the key")
    if not text.isascii():
        raise ValueError("browsers send host names in ASCII: xn--…")
    match = _PATTERN.fullmatch(text.lower())
    if match is None or (match[2] and match[3].startswith("[")):
        raise ValueError("a scheme, a host name and optionally a port, without a path")
    scheme, star, host, port = match.groups()
    if scheme is None and star is None:
        raise ValueError(f"https://{text} or http://{text}: a page without TLS has another origin")
    if port is not None and not 1 <= int(port) <= MAX_PORT:
        raise ValueError(f"a port is a number from 1 to {MAX_PORT}")
    return Pattern(_make(scheme or "https", host, port), star is not None)


def _make(scheme: str, host: str, port: str | None) -> Origin:
    return Origin(scheme, host, DEFAULT_PORTS.get(scheme) if port is None else int(port))


class Origins:
    """The allowed origins; if empty, all are allowed."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [read_pattern(text) for text in patterns]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def allows(self, header: str | None) -> bool:
        """Return whether a request with this `Origin` header may be served.

        A request without it comes from a program or from a same-origin page: the caller has to check `names`.
        """
        if not self._patterns or header is None:
            return True
        match = _ORIGIN.fullmatch(header.lower())
        if match is None:
            return False
        origin = _make(*match.groups())
        return any(pattern.matches(origin) for pattern in self._patterns)

    def names(self, host: str) -> bool:
        """Return whether one of the origins has this host name, with any scheme and port."""
        return any(pattern.names(host) for pattern in self._patterns)

    def fields(self, header: str | None) -> dict[str, str]:
        """Return the CORS header fields that let the page of an allowed origin, and no other, read the response."""
        if not self._patterns:
            return {"Access-Control-Allow-Origin": "*"}
        if header is None or not self.allows(header):
            return {"Vary": "Origin"}
        return {"Access-Control-Allow-Origin": header, "Vary": "Origin"}
