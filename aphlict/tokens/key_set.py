"""The token keys of a server, and verification of tokens with them."""

import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from jwt import PyJWS
from jwt.exceptions import InvalidTokenError
from msgspec import Struct

from aphlict.config.files import Read, read_file
from aphlict.config.settings import ServerSettings
from aphlict.errors import InvalidToken, TokenExpired
from aphlict.protocol.http import DEFAULT_INSTANCE
from aphlict.tokens.grant import MAX_LIFETIME, Grant
from aphlict.tokens.keys import COSTS_IN_COMMANDS, Key, read_keys

LEEWAY = 5.0  # seconds by which the clocks of the signer and this server may differ
MAX_TRIED = 4  # keys for one token: verification with ES256 takes 60 µs
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


class _Header(Struct):
    alg: str
    kid: str | None = None
    crit: msgspec.Raw | None = None


class _Claims(Struct):
    exp: float
    channels: list[str | int]
    instance: str | None = None
    sub: str | None = None
    nbf: float | None = None
    aud: str | list[str] | None = None


_header = msgspec.json.Decoder(_Header)
_claims = msgspec.json.Decoder(_Claims)
_WRONG = (msgspec.DecodeError, ValueError, RecursionError)


class KeySet:
    """Verifies tokens. Several keys are valid at a time so that they can be rotated."""

    def __init__(self, keys: Iterable[Key], audience: str | None = None) -> None:
        self._keys = tuple(keys)
        self._audience = audience
        self._thumbprints = {each.thumbprint for each in self._keys}
        self._jws = PyJWS(algorithms=list(COSTS_IN_COMMANDS))

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def has(self, thumbprint: bytes) -> bool:
        """Return whether a key is still in the set."""
        return thumbprint in self._thumbprints

    def verify(self, token: str, now: float, on_cost: Callable[[int], None]) -> Grant:
        """Verify a token at a Unix time and return what it allows. Raises InvalidToken.

        `on_cost` is called before each signature check with its cost in commands.
        """
        if not _FORM.fullmatch(token):
            raise InvalidToken("the token is not a JWT: expected three parts separated by dots")
        key, payload = self._verify_signature(token, self._candidates(_read_header(token)), on_cost)
        try:
            claims = _claims.decode(payload)
        except _WRONG as error:
            raise InvalidToken(f"the claims of the token are invalid: {error}") from error
        self._check_claims(claims, now)
        return _grant(claims, key)

    def _candidates(self, header: _Header) -> list[Key]:
        """Return the keys that may have signed a token. A key's algorithm counts, not the token's (RFC 8725, 3.1)."""
        if header.crit is not None:
            raise InvalidToken("the token requires an extension ('crit') that this server does not support")
        good = [each for each in self._keys if each.algorithm == header.alg]
        if header.kid is not None:
            good = [each for each in good if each.id in (header.kid, None)]
        if not good:
            raise InvalidToken("this server has no key with the 'alg' and the 'kid' of the token")
        if len(good) > MAX_TRIED:
            raise InvalidToken("too many keys of this server match the token: it must name one ('kid')")
        return good

    def _verify_signature(
        self, token: str, keys: Sequence[Key], on_cost: Callable[[int], None]
    ) -> tuple[Key, bytes]:
        for key in keys:
            on_cost(key.cost)
            try:
                return key, self._jws.decode(token, key.verifier, algorithms=[key.algorithm])
            except (InvalidTokenError, *_WRONG):
                continue
        raise InvalidToken("the token is not signed by a key of this server")

    def _check_claims(self, claims: _Claims, now: float) -> None:
        if not math.isfinite(claims.exp) or now >= claims.exp + LEEWAY:
            raise TokenExpired("the token has expired")
        if claims.exp > now + MAX_LIFETIME:
            raise InvalidToken("the token is valid for more than a year: is its 'exp' in milliseconds?")
        if claims.nbf is not None and now < claims.nbf - LEEWAY:
            raise InvalidToken("the token is not valid yet ('nbf'): do the clocks differ?")
        audience = [claims.aud] if isinstance(claims.aud, str) else claims.aud or []
        if self._audience is None and audience:
            raise InvalidToken("the token has an 'aud', but this server has no auth.audience")
        if self._audience is not None and self._audience not in audience:
            raise InvalidToken("the 'aud' of the token does not contain this server's auth.audience")


def _read_header(token: str) -> _Header:
    try:
        return _header.decode(urlsafe_b64decode(token.partition(".")[0] + "=="))
    except _WRONG as error:
        raise InvalidToken("the header of the token is not a JWT header") from error


def _grant(claims: _Claims, key: Key) -> Grant:
    channels = [str(each) for each in claims.channels]
    return Grant(
        instance=DEFAULT_INSTANCE if claims.instance is None else claims.instance,
        sub=claims.sub,
        names=frozenset(each for each in channels if not each.endswith("*")),
        prefixes=tuple({each[:-1] for each in channels if each.endswith("*")}),
        expires=claims.exp + LEEWAY,
        key=key.thumbprint,
    )


def load(server: ServerSettings, read: Read = read_file) -> KeySet | None:
    """Read the keys of a server; None if it does not require tokens. Raises ConfigError."""
    if not server.auth_keys:
        return None
    where = f"of the client server on port {server.port}"
    files = [
        read_keys(f"auth.keys[{index}] {where}", path, read) for index, path in enumerate(server.auth_keys)
    ]
    return KeySet([key for keys in files for key in keys], server.auth_audience)
