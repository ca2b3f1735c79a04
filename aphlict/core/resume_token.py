"""Resume tokens: what a client has received, in a form that every node of a cluster understands."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from hashlib import blake2b

from msgspec import Struct

from aphlict.core.version_vector import MAX_LISTED, NAME_LENGTH

DIGEST_SIZE = 6  # bytes, which are 8 characters without padding
MAX_EARLY = 16  # digests
MAX_TOKEN_SIZE = 2048  # characters

_FORM = re.compile(r"~2\.([0-9a-f]{1,12})((?:\.[A-Za-z0-9]{8}[0-9a-f]{1,13})*)((?:~[A-Za-z0-9_-]{8})*)")


class ResumeToken(Struct, frozen=True):
    """What a client had received at `at` (Unix time, seconds).

    `version`: up to which number it had the messages of each origin, on the channels that it was subscribed to.
    `early`: the digests of messages beyond, which it had from another node, and which the node that made the token
    had not received.
    """

    at: float
    version: Mapping[str, int]
    early: tuple[bytes, ...] = ()

    def encode(self) -> str:
        """Encode in ASCII characters, none of which needs escaping in a URL: about 14 for each origin."""
        return encode_token(self.at, self.version, self.early)

    @classmethod
    def decode(cls, text: str) -> "ResumeToken | None":
        """Decode a token; None for any other text, such as a uniqueID. Tokens come from clients: anything may be
        in them."""
        match = _FORM.fullmatch(text) if len(text) <= MAX_TOKEN_SIZE else None
        if match is None:
            return None
        at, items, digests = match.groups()
        version = {
            item[:NAME_LENGTH]: int(item[NAME_LENGTH:], 16) for item in items.split(".")[1:][:MAX_LISTED]
        }
        early = tuple(map(urlsafe_b64decode, digests.split("~")[1:][:MAX_EARLY]))
        return cls(int(at, 16), version, early)


def encode_token(at: float, version: Mapping[str, int], early: Iterable[bytes] = ()) -> str:
    """Encode a ResumeToken with these attributes."""
    items = "".join([f".{name}{number:x}" for name, number in version.items()])
    digests = "".join([f"~{urlsafe_b64encode(each).decode()}" for each in early])
    return f"~2.{max(0, int(at)):x}{items}{digests}"


def digest(unique_id: str) -> bytes:
    """Return the digest by which resume tokens name a message."""
    return blake2b(unique_id.encode("utf-8", "surrogatepass"), digest_size=DIGEST_SIZE).digest()
