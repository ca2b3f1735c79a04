"""Where a reader of an instance stands, as a word that any node of a cluster can go on from."""

import re
from base64 import urlsafe_b64decode
from binascii import b2a_base64
from collections.abc import Iterable
from hashlib import blake2b

from msgspec import Struct

REMEMBERED = 16  # messages that a position names
EARLY = 8  # messages that it names beside, which other nodes had first
OVERLAP = 15.0  # seconds that another node looks back: delays between nodes, and between their clocks
RECENT = 2 * OVERLAP  # seconds after which a message that a reader had will not come to another node any more
DIGEST = 4  # bytes that stand for a uniqueID

_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_FORM = re.compile(
    r"~([A-Za-z0-9]{1,32})\.([0-9a-f]{1,15})\.([0-9a-f]{1,12})\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]*)"
)


class ResumeToken(Struct, frozen=True):
    """A place in what a node sent to one reader.

    The node named `origin` goes on after `sequence`. Others, which number messages by themselves, go by the time
    `at` (Unix time, seconds), and leave out the messages that the reader had `recent`ly. No node sends those that
    came `early`: the reader had them before they came to the node that made this. Both are digests of uniqueIDs.
    """

    origin: str
    sequence: int
    at: float
    recent: tuple[bytes, ...] = ()
    early: tuple[bytes, ...] = ()

    @property
    def is_full(self) -> bool:
        """Whether the reader may have had more messages lately than are named."""
        return len(self.recent) >= REMEMBERED

    def text(self) -> str:
        """The position as a word: 200 letters at most, none of which needs escaping in a URL."""
        return f"{head(self.origin, self.sequence, self.at)}{_pack(self.recent)}.{_pack(self.early)}"


def head(origin: str, sequence: int, at: float) -> str:
    """The begin of a position as a word: behind it come the digests, `encode`d, with a dot between the two kinds."""
    return f"~{origin}.{sequence:x}.{max(0, round(at * 1000)):x}."


def read(text: str) -> ResumeToken | None:
    """Read what `text` made; None for anything else, such as a uniqueID."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    origin, sequence, at, recent, early = match.groups()
    return ResumeToken(
        origin, int(sequence, 16), int(at, 16) / 1000, _unpack(recent, REMEMBERED), _unpack(early, EARLY)
    )


def read_all(texts: Iterable[str]) -> list[ResumeToken]:
    """The positions among these words."""
    return [position for text in texts if (position := read(text))]


def digest(unique_id: str) -> bytes:
    """What stands for a uniqueID in a position."""
    return blake2b(unique_id.encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest()


def encode(digests: bytes) -> bytes:
    """What stands for joined digests in a position."""
    return b2a_base64(digests, newline=False).translate(_URL_SAFE).rstrip(b"=")


def _pack(digests: tuple[bytes, ...]) -> str:
    return encode(b"".join(digests)).decode()


def _unpack(text: str, most: int) -> tuple[bytes, ...]:
    whole = text[: len(text) - (len(text) % 4 == 1)]
    packed = urlsafe_b64decode(whole + "=" * (-len(whole) % 4))[: most * DIGEST]
    return tuple(packed[start : start + DIGEST] for start in range(0, len(packed), DIGEST))
