"""Resume tokens, and which messages a client that resumes has missed."""

import re
from array import array
from base64 import urlsafe_b64decode
from binascii import b2a_base64
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from math import inf
from operator import attrgetter

from msgspec import Struct

from aphlict.core.history import Entry, InstanceHistory
from aphlict.core.message import DIGEST_SIZE, Delivery, digest
from aphlict.core.subscriptions import Subscriber
from aphlict.errors import HistoryEvicted

MAX_RECENT = 16  # digests of messages that the client had
MAX_EARLY = 8  # digests of messages that other nodes had first
# How far another node looks back from the time of a token: covers the delay between nodes and the difference of
# their clocks.
OVERLAP_SECONDS = 15.0
# A message that the client had longer ago than this has reached every node, so that the overlap cannot repeat it.
RECENT_SECONDS = 2 * OVERLAP_SECONDS
MAX_COMPARED = 64  # newest entries that are compared with the digests of a token

_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_FORM = re.compile(
    r"~([A-Za-z0-9]{1,32})\.([0-9a-f]{1,15})\.([0-9a-f]{1,12})\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]*)"
)
_SEQUENCE = "Q"  # array type code: 8 bytes
_by_time = attrgetter("at")


class ResumeToken(Struct, frozen=True):
    """A point in what a node delivered to one client, from which every node of the cluster can go on.

    The node whose hub has the name `origin` goes on after `sequence`. Other nodes number messages differently: they
    go by the time `at` (Unix time, seconds) and leave out the messages in `recent`, which the client had shortly
    before. No node delivers those in `early`: the client had them from another node before they reached `origin`.
    Both hold digests of uniqueIDs.
    """

    origin: str
    sequence: int
    at: float
    recent: tuple[bytes, ...] = ()
    early: tuple[bytes, ...] = ()

    @property
    def is_full(self) -> bool:
        """Whether the client may have had more messages recently than `recent` can hold."""
        return len(self.recent) >= MAX_RECENT

    def encode(self) -> str:
        """Encode as at most 200 ASCII characters, none of which needs escaping in a URL."""
        recent, early = encode_digests(b"".join(self.recent)), encode_digests(b"".join(self.early))
        return f"{token_prefix(self.origin, self.sequence, self.at)}{recent.decode()}.{early.decode()}"

    @classmethod
    def decode(cls, text: str) -> "ResumeToken | None":
        """Decode a token; None for any other text, such as a uniqueID."""
        match = _FORM.fullmatch(text)
        if match is None:
            return None
        origin, sequence, at, recent, early = match.groups()
        digests = _decode_digests(recent, MAX_RECENT), _decode_digests(early, MAX_EARLY)
        return cls(origin, int(sequence, 16), int(at, 16) / 1000, *digests)


def token_prefix(origin: str, sequence: int, at: float) -> str:
    """Return the part of an encoded token that is the same for all clients.

    The digests follow, each of the two groups as `encode_digests` returns it, with a dot between them.
    """
    return f"~{origin}.{sequence:x}.{max(0, round(at * 1000)):x}."


def encode_digests(digests: bytes) -> bytes:
    """Encode concatenated digests for a token."""
    return b2a_base64(digests, newline=False).translate(_URL_SAFE).rstrip(b"=")


def _decode_digests(text: str, max_count: int) -> tuple[bytes, ...]:
    # Tokens come from clients: a last character that alone is no byte is dropped rather than an error.
    whole = text[: len(text) - (len(text) % 4 == 1)]
    packed = urlsafe_b64decode(whole + "=" * (-len(whole) % 4))[: max_count * DIGEST_SIZE]
    return tuple(packed[start : start + DIGEST_SIZE] for start in range(0, len(packed), DIGEST_SIZE))


class Resumption:
    """Where a client resumes. `after`: the uniqueIDs that it had and the tokens that it received, from any node.

    Each token that is still valid claims that the client has everything up to some sequence; the highest claim
    counts. All the uniqueIDs together make one claim, for the oldest of these messages, as nodes may have received
    messages in different orders. Messages that a token or uniqueID names are not delivered again.

    `epoch` is the Unix time at which the clock of the history starts. Nothing is known about messages published
    before `known_since`, on that clock.
    """

    __slots__ = ("_digests", "_unique_ids", "early", "examined", "recovered", "sequence")

    def __init__(
        self,
        history: InstanceHistory,
        channels: Collection[str],
        after: Sequence[str],
        origin: str,
        epoch: float,
        known_since: float,
    ) -> None:
        self._unique_ids = frozenset(after)
        tokens = [token for text in after if (token := ResumeToken.decode(text))]
        self._digests = frozenset(name for token in tokens for name in (*token.recent, *token.early))
        claims = [history.sequence_of(self._unique_ids)]
        claims += [_claim_here(history, token) for token in tokens if token.origin == origin]
        foreign = max((token for token in tokens if token.origin != origin), key=_by_time, default=None)
        if foreign is not None:
            claims.append(_claim_elsewhere(history, foreign, channels, epoch, known_since))
        valid = [claim for claim in claims if claim is not None]
        self.sequence = max(
            valid, default=0
        )  # later messages are missing, except those that the client names
        self.examined = len(after)  # words of the client and entries of the history: what `charge` counts
        self.recovered = bool(valid) and known_since < inf  # no message is missing beyond those of `missing`
        self.early = _early(history, tokens, channels, origin)

    @property
    def recent(self) -> tuple[bytes, ...]:
        """Digests of the messages that the client had, at most MAX_RECENT."""
        digests = (digest(name) for name in self._unique_ids if not name.startswith("~"))
        return tuple(islice(chain(self._digests, digests), MAX_RECENT))

    def has_seen(self, unique_id: str) -> bool:
        """Whether the client had this message before."""
        return unique_id in self._unique_ids or (bool(self._digests) and digest(unique_id) in self._digests)

    def missing(self, history: InstanceHistory, channels: Collection[str]) -> list[Entry]:
        """Return the kept messages on these channels that the client has not had, oldest first."""
        later = history.select(channels, lambda entry: entry.sequence > self.sequence)
        self.examined += len(later)
        unique_ids, digests = self._unique_ids, self._digests
        new = [entry for entry in later if entry.message.unique_id not in unique_ids]
        return [entry for entry in new if entry.digest not in digests] if digests else new


def _claim_here(history: InstanceHistory, token: ResumeToken) -> int | None:
    """Return the sequence of a token of this node; None where a later message has been evicted."""
    return token.sequence if history.evicted_sequence <= token.sequence else None


def _claim_elsewhere(
    history: InstanceHistory, token: ResumeToken, channels: Collection[str], epoch: float, known_since: float
) -> int | None:
    """Return the sequence after which this node goes on from another node's token; None where messages may be gone.

    A message that the other node delivered before `at` may have come here up to OVERLAP_SECONDS later or earlier, so
    all messages since then are candidates; those that the client had are left out by their digests. A full token
    does not name all of them: the client received more than MAX_RECENT messages within RECENT_SECONDS. Then the
    oldest of the named messages marks the start, as the client had what came before it. Going back by time alone
    would deliver the messages that did not fit into the token a second time.
    """
    at = token.at - epoch
    if max(history.evicted_at, known_since) > at:
        return None
    since = at - OVERLAP_SECONDS
    if token.is_full:
        entries = history.newest(channels, history.last_sequence, MAX_COMPARED)[::-1]
        digests = frozenset(token.recent)
        named = next((entry for entry in entries if entry.digest in digests), None)
        if named is not None:
            first = next((entry for entry in entries if entry.at > since), None)
            return named.sequence if first is None else max(named.sequence, first.sequence - 1)
    return history.sequence_at(since)


def _early(
    history: InstanceHistory, tokens: Iterable[ResumeToken], channels: Collection[str], origin: str
) -> tuple[bytes, ...]:
    """Return digests of messages that the client had, and which may still reach this node.

    Another node delivered them; the relay is slower than a client that reconnects. When they arrive here they must
    not be delivered to it, whichever connection it has by then, so the tokens that it receives here name them on.
    """
    latest = max(tokens, key=_by_time, default=None)
    if latest is None:
        return ()
    digests = latest.early if latest.origin == origin else (*latest.recent, *latest.early)
    if not digests:
        return ()
    newest = history.newest(channels, history.last_sequence, MAX_COMPARED)
    arrived = {entry.digest for entry in newest}
    return tuple(name for name in digests if name not in arrived)[:MAX_EARLY]


def replay(subscriber: Subscriber, entries: Iterable[Entry]) -> Iterator[Delivery]:
    """Return the deliveries of these entries, each for the channels that are subscribed when its turn comes.

    The iterator looks up each entry only then, so that a slow client does not keep all the messages in memory. It
    raises HistoryEvicted where the history no longer has an entry.
    """
    return _look_up(subscriber, array(_SEQUENCE, [entry.sequence for entry in entries]))


def _look_up(subscriber: Subscriber, sequences: Sequence[int]) -> Iterator[Delivery]:
    subscriptions = subscriber.subscriptions
    for sequence in sequences:
        if not subscriptions:
            return
        entry = subscriber.instance.history.get_by_sequence(sequence)
        if entry is None:
            raise HistoryEvicted("a message of the replay has been evicted from the history")
        channels = tuple(name for name in entry.message.channels if name in subscriptions)
        if channels:
            yield entry.message.delivery(channels)
