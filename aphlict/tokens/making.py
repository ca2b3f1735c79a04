"""Making tokens, for trying out and for scripts; backends make their own."""

from collections.abc import Sequence
from typing import Any

from jwt import PyJWS
from msgspec.json import encode

from aphlict.tokens.keys import Key


def make(
    key: Key,
    channels: Sequence[str],
    expires: int,
    *,
    instance: str | None = None,
    sub: str | None = None,
    audience: str | None = None,
) -> str:
    """Make a token that ends at a Unix time; the key has to have a `signer`."""
    claims: dict[str, Any] = {"exp": expires, "channels": list(channels)}
    claims |= {
        name: value
        for name, value in (("instance", instance), ("sub", sub), ("aud", audience))
        if value is not None
    }
    return sign(key, encode(claims))


def sign(key: Key, claims: bytes) -> str:
    """Make a token of claims that are encoded already."""
    headers = None if key.id is None else {"kid": key.id}
    return PyJWS().encode(claims, key.signer, algorithm=key.algorithm, headers=headers)
