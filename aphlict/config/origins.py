"""The origins of pages (RFC 6454): which of them may speak to a port."""

import re
from collections.abc import Iterable
from typing import NamedTuple

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_PORT = 65535

_NAME = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://({_NAME}|\[[0-9a-f:.]+\])(?::([0-9]{{1,5}}))?")
_PATTERN = re.compile(rf"(?:([a-z][a-z0-9+.-]*)://)?(\*\.)?({_NAME}|\[[0-9a-f:.]+\])(?::([0-9]{{1,5}}))?")


class Origin(NamedTuple):
    """Where a page comes from; `port` is None where the scheme has none by default."""

    scheme: str
    host: str
    port: int | None


class Pattern(NamedTuple):
    """An origin, or with `below` those of all names below it."""

    origin: Origin
    below: bool

    @property
    def example(self) -> str:
        """An origin that is meant."""
        scheme, host, port = self.origin
        host = f"page.{host}" if self.below else host
        return (
            f"{scheme}://{host}" if port in (None, DEFAULT_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"
        )

    def matches(self, origin: Origin) -> bool:
        """Whether an origin is meant."""
        if not self.below:
            return origin == self.origin
        own = self.origin
        return (origin.scheme, origin.port) == (own.scheme, own.port) and self.names(origin.host)

    def names(self, host: str) -> bool:
        """Whether an origin with this host is meant, whatever its scheme and port."""
        return host.endswith(f".{self.origin.host}") if self.below else host == self.origin.host


def read_pattern(text: str) -> Pattern:
    """Read an entry of `origins`. Raises ValueError with the reason."""
    if text == "*":
        raise ValueError("to let pages of all origins in, leave the key out")
    if not text.isascii():
        raise ValueError("browsers send names in ASCII: xn--…")
    match = _PATTERN.fullmatch(text.lower())
    if match is None or (match[2] and match[3].startswith("[")):
        raise ValueError("a scheme, a name and perhaps a port, without a path")
    scheme, star, host, port = match.groups()
    if scheme is None and star is None:
        raise ValueError(f"https://{text} or http://{text}: a page without TLS is another one")
    if port is not None and not 1 <= int(port) <= MAX_PORT:
        raise ValueError(f"a port is a whole number from 1 to {MAX_PORT}")
    return Pattern(_make(scheme or "https", host, port), star is not None)


def _make(scheme: str, host: str, port: str | None) -> Origin:
    return Origin(scheme, host, DEFAULT_PORTS.get(scheme) if port is None else int(port))


class Origins:
    """The origins whose pages may speak; none of them: all may."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [read_pattern(text) for text in patterns]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def allows(self, header: str | None) -> bool:
        """Whether a request with this `Origin` may be served. One without is of a program, or of a page that has the
        name under which it was sent: `names` has to be asked for that."""
        if not self._patterns or header is None:
            return True
        match = _ORIGIN.fullmatch(header.lower())
        if match is None:
            return False
        origin = _make(*match.groups())
        return any(pattern.matches(origin) for pattern in self._patterns)

    def names(self, host: str) -> bool:
        """Whether a page under this host name may be of one of the origins, whatever its scheme and port."""
        return any(pattern.names(host) for pattern in self._patterns)

    def fields(self, header: str | None) -> dict[str, str]:
        """The fields of an answer that let the page read it, and no other."""
        if not self._patterns:
            return {"Access-Control-Allow-Origin": "*"}
        if header is None or not self.allows(header):
            return {"Vary": "Origin"}
        return {"Access-Control-Allow-Origin": header, "Vary": "Origin"}
