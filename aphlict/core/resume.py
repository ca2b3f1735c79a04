"""What a reader who comes back is missing: decided from the words that it brings along."""

from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from math import inf

from aphlict.core import resume_token as position
from aphlict.core.history import Entry, InstanceHistory
from aphlict.core.message import Delivery
from aphlict.core.resume_token import EARLY, OVERLAP, REMEMBERED, ResumeToken, digest
from aphlict.core.subscriptions import Subscriber
from aphlict.errors import HistoryEvicted

SEQUENCE = "Q"  # an array's code for 8 bytes
LOOKED_AT = 64  # messages that are compared with those that a position names


class Resumption:
    """Where a reader goes on. `after`: uniqueIDs that it had, and positions that it was told, on whatever node.

    Each word that is still understood says: the reader has everything up to there; the latest one counts. Of
    several uniqueIDs it is the oldest, as nodes may have taken messages in different orders. What the words name
    is left out. `epoch` is the Unix time at which the times of the history begin, and nothing is known of what was
    published before `begin`.
    """

    __slots__ = ("_digests", "_names", "early", "looked_at", "recovered", "sequence")

    def __init__(
        self,
        history: InstanceHistory,
        channels: Collection[str],
        after: Sequence[str],
        origin: str,
        epoch: float,
        begin: float,
    ) -> None:
        self._names = frozenset(after)
        positions = position.read_all(after)
        self._digests = frozenset(name for each in positions for name in (*each.recent, *each.early))
        claims = [history.position(self._names)]
        claims += [_resume_here(history, each) for each in positions if each.origin == origin]
        foreign = max((each for each in positions if each.origin != origin), key=_time, default=None)
        if foreign is not None:
            claims.append(_resume_elsewhere(history, foreign, channels, epoch, begin))
        known = [claim for claim in claims if claim is not None]
        self.sequence = max(known, default=0)  # what came later than this is missing, save what was seen
        self.looked_at = len(after)  # words, and messages of the history
        self.recovered = bool(known) and begin < inf  # nothing can be missing beside that
        self.early = _early(history, positions, channels, origin)  # what was seen, and may come here yet

    @property
    def recent(self) -> tuple[bytes, ...]:
        """Digests of messages that the reader had, as many as a position names."""
        names = (digest(name) for name in self._names if not name.startswith("~"))
        return tuple(islice(chain(self._digests, names), REMEMBERED))

    def has_seen(self, unique_id: str) -> bool:
        """Whether the reader had this message before."""
        return unique_id in self._names or (bool(self._digests) and digest(unique_id) in self._digests)

    def missing(self, history: InstanceHistory, channels: Collection[str]) -> list[Entry]:
        """The kept messages on these channels that the reader has not had, oldest first."""
        later = history.select(channels, lambda entry: entry.sequence > self.sequence)
        self.looked_at += len(later)
        names, digests = self._names, self._digests
        new = [entry for entry in later if entry.message.unique_id not in names]
        return [entry for entry in new if entry.digest not in digests] if digests else new


def _resume_here(history: InstanceHistory, place: ResumeToken) -> int | None:
    return place.sequence if history.lost <= place.sequence else None


def _resume_elsewhere(
    history: InstanceHistory, place: ResumeToken, channels: Collection[str], epoch: float, begin: float
) -> int | None:
    """Go back far enough to miss nothing that was late, but no further than to the messages that are named."""
    at = place.at - epoch
    if max(history.lost_at, begin) > at:
        return None
    since = at - OVERLAP
    if place.is_full:
        entries = history.newest(channels, history.last_sequence, LOOKED_AT)[::-1]
        names = frozenset(place.recent)
        named = next((each for each in entries if each.digest in names), None)
        if named is not None:
            return max(named.sequence, _before(since, entries, named.sequence))
    return history.sequence_at(since)


def _before(since: float, entries: list[Entry], otherwise: int) -> int:
    """The sequence before the first of these that is later."""
    return next((entry.sequence - 1 for entry in entries if entry.at > since), otherwise)


def _early(
    history: InstanceHistory, positions: Iterable[ResumeToken], channels: Collection[str], origin: str
) -> tuple[bytes, ...]:
    latest = max(positions, key=_time, default=None)
    if latest is None:
        return ()
    names = latest.early if latest.origin == origin else (*latest.recent, *latest.early)
    if not names:
        return ()
    lately = history.newest(channels, history.last_sequence, LOOKED_AT)
    here = {entry.digest for entry in lately}
    return tuple(name for name in names if name not in here)[:EARLY]


def _time(place: ResumeToken) -> float:
    return place.at


def replay(subscriber: Subscriber, entries: Iterable[Entry]) -> Iterator[Delivery]:
    """The deliveries of these messages, for the channels that are subscribed when their turn comes.

    Each message is looked up then: a reader that takes its time must not keep them all. The iterator raises
    HistoryEvicted where the history no longer has one.
    """
    return _look_up(subscriber, array(SEQUENCE, [entry.sequence for entry in entries]))


def _look_up(subscriber: Subscriber, sequences: Sequence[int]) -> Iterator[Delivery]:
    held = subscriber.subscriptions
    for sequence in sequences:
        if not held:
            return
        entry = subscriber.instance.history.find(sequence)
        if entry is None:
            raise HistoryEvicted("a message of the replay has been forgotten")
        channels = tuple(name for name in entry.message.channels if name in held)
        if channels:
            yield entry.message.delivery(channels)
