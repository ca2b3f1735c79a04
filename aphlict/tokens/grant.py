"""What a token allows, once it has been proven."""

from collections.abc import Sequence
from typing import Any

from jwt import PyJWS
from msgspec import Struct
from msgspec.json import encode

from aphlict.config.descriptions import show
from aphlict.errors import ChannelForbidden, InstanceForbidden
from aphlict.tokens.keys import Key

MAX_LIFETIME = 366 * 86400  # seconds; a time in milliseconds, a common mistake, would hold for ever


class Grant(Struct, frozen=True):
    """The channels of an instance that may be listened to: by their names, and by how they begin.

    `expires` is a Unix time; `key` is the thumbprint of the key that proved it.
    """

    instance: str
    sub: str | None
    names: frozenset[str]
    prefixes: tuple[str, ...]
    expires: float
    key: bytes

    def __str__(self) -> str:
        """Name all that it allows."""
        return ", ".join([*sorted(self.names), *(f"{prefix}*" for prefix in sorted(self.prefixes))])

    def allows(self, channel: str) -> bool:
        """Whether a channel may be listened to."""
        return channel in self.names or channel.startswith(self.prefixes)

    def check_channels(self, channels: tuple[str, ...]) -> None:
        """Raise Forbidden, with all `channels` that may not be listened to, and the first of them in the text."""
        refused = tuple(channel for channel in channels if not self.allows(channel))
        if refused:
            error = ChannelForbidden(f"the token does not name the channel {show(refused[0])}")
            error.channels = refused
            raise error

    def seconds_left(self, unix_now: float) -> int:
        """How long it still holds."""
        return int(max(self.expires - unix_now, 0))

    def check_instance(self, instance: str) -> None:
        """Raise Forbidden where it is for another instance."""
        if instance != self.instance:
            raise InstanceForbidden(
                f"the token is for the instance {show(self.instance)}, not {show(instance)}"
            )


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
