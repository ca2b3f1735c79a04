"""What a verified token allows; and signing of tokens."""

from collections.abc import Sequence
from typing import Any

from jwt import PyJWS
from msgspec import Struct
from msgspec.json import encode

from aphlict.config.descriptions import show
from aphlict.errors import ChannelForbidden, InstanceForbidden
from aphlict.tokens.keys import Key

MAX_LIFETIME = 366 * 86400  # seconds; rejects an `exp` in milliseconds, a common mistake


class Grant(Struct, frozen=True):
    """The channels of an instance that a client may subscribe to, by name and by prefix.

    `expires` is a Unix time; `key` is the thumbprint of the key that verified the token.
    """

    instance: str
    sub: str | None
    names: frozenset[str]
    prefixes: tuple[str, ...]
    expires: float
    key: bytes

    def __str__(self) -> str:
        """List the names and prefixes."""
        return ", ".join([*sorted(self.names), *(f"{prefix}*" for prefix in sorted(self.prefixes))])

    def allows(self, channel: str) -> bool:
        """Return whether the client may subscribe to a channel."""
        return channel in self.names or channel.startswith(self.prefixes)

    def check_channels(self, channels: tuple[str, ...]) -> None:
        """Raise ChannelForbidden with all `channels` that are not allowed, the first of them in the text."""
        refused = tuple(channel for channel in channels if not self.allows(channel))
        if refused:
            error = ChannelForbidden(f"the token does not allow the channel {show(refused[0])}")
            error.channels = refused
            raise error

    def seconds_left(self, unix_now: float) -> int:
        """Return the seconds until the grant expires."""
        return int(max(self.expires - unix_now, 0))

    def check_instance(self, instance: str) -> None:
        """Raise InstanceForbidden if the token is for another instance."""
        if instance != self.instance:
            raise InstanceForbidden(
                f"the token is for the instance {show(self.instance)}, not {show(instance)}"
            )


def make_token(
    key: Key,
    channels: Sequence[str],
    expires: int,
    *,
    instance: str | None = None,
    sub: str | None = None,
    audience: str | None = None,
) -> str:
    """Return a token that expires at a Unix time; the key must have a `signer`."""
    claims: dict[str, Any] = {"exp": expires, "channels": list(channels)}
    claims |= {
        name: value
        for name, value in (("instance", instance), ("sub", sub), ("aud", audience))
        if value is not None
    }
    return sign_token(key, encode(claims))


def sign_token(key: Key, claims: bytes) -> str:
    """Return a token with these claims (JSON)."""
    headers = None if key.id is None else {"kid": key.id}
    return PyJWS().encode(claims, key.signer, algorithm=key.algorithm, headers=headers)
