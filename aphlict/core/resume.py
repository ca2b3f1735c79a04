"""Which messages a client that resumes has missed, and which it had before this node."""

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile

from aphlict.core.history import MAX_AGE, Entry, InstanceHistory
from aphlict.core.message import Delivery, Message
from aphlict.core.resume_token import MAX_EARLY, ResumeToken, digest
from aphlict.core.subscriptions import Receiver, Subscriber
from aphlict.core.version_vector import IMPLIED_SECONDS, MAX_LISTED, MessageOrigin, VersionVector
from aphlict.errors import HistoryEvicted

# Messages reach all nodes within MAX_AGE, or never. So what was accepted here this long before another message had
# reached the other nodes before that one.
SETTLED_SECONDS = 2 * MAX_AGE
# Until all peers have been heard, this node does not know what its predecessor received. A token that is younger than
# this node by so many seconds covers that; clocks may differ by half of it.
PREDECESSOR_SECONDS = 2 * MAX_AGE

MAX_EARLY_CLIENTS = 32768  # that a node remembers: an attacker may invent messages
_SEQUENCE = "Q"  # array type code: 8 bytes


class Resumption:
    """Where a client resumes. `after`: the uniqueIDs that it had and the tokens that it received, from any node.

    `version`: up to which number the client has the messages of each origin. The tokens decide, all together: each is
    a claim that holds. Messages that `after` names are not delivered again, and have no other effect; only without
    a token they show how far the client is. `recovered`: no message is missing beyond those of `missing`.
    `sequence`: everything up to it is covered by the version. `examined`: words of the client and entries of the
    history, by which the caller charges.

    `epoch` is the Unix time at which the clock of the history starts.
    """

    __slots__ = ("_digests", "_names", "examined", "recovered", "sequence", "version")

    def __init__(
        self,
        history: InstanceHistory,
        channels: Collection[str],
        after: Sequence[str],
        origins: VersionVector,
        epoch: float,
    ) -> None:
        tokens = [token for text in after if (token := ResumeToken.decode(text))]
        self._names = frozenset(text for text in after if not text.startswith("~"))
        self._digests = frozenset(each for token in tokens for each in token.early)
        self.examined = len(after) + sum(len(token.version) for token in tokens)
        self.version: dict[str, int] = {}
        for token in tokens:
            # This node cannot judge the messages of unknown origins; the client is told that it may have missed some.
            # While nodes have not been heard, they may come; later the origins are those of nodes that are gone.
            known = {
                name: number
                for name, number in token.version.items()
                if origins.get(name) or not origins.is_complete
            }
            merge(self.version, known)
        self.recovered = any(_is_valid(token, history, origins, epoch) for token in tokens)
        if not tokens:
            self._follow_names(history, channels, origins)
        else:
            self._add_origins(history)
        self.sequence = origins.sequence_of(self.version)

    def missing(self, history: InstanceHistory, channels: Collection[str]) -> list[Entry]:
        """Return the kept messages on these channels that the client has not had, oldest first."""
        later = history.select(channels, lambda entry: entry.sequence > self.sequence)
        self.examined += len(later)
        version, names, digests = self.version, self._names, self._digests
        new = [
            entry
            for entry in later
            if not entry.is_covered_by(version) and entry.message.unique_id not in names
        ]
        return [entry for entry in new if digest(entry.message.unique_id) not in digests] if digests else new

    def early(self, history: InstanceHistory) -> tuple[bytes, ...]:
        """Return the digests of messages that the client had and this node has not received, at most MAX_EARLY."""
        evicted = {each.unique_id for each in history.evicted.values()}
        early = [digest(name) for name in self._names if name not in history and name not in evicted]
        if self._digests:
            later = takewhile(lambda entry: entry.sequence > self.sequence, reversed(history.entries))
            here = {digest(entry.message.unique_id) for entry in later}
            self.examined += len(here)
            early += self._digests - here
        return tuple(early[:MAX_EARLY])

    def _add_origins(self, history: InstanceHistory) -> None:
        """Learn from the names of messages whose origin no token lists: the node that made it had not heard it yet.

        The client has had the messages of the origin before these, or was not owed them.
        """
        messages = [entry.message for name in self._names if (entry := history.get(name))]
        for message in [each for each in messages if each.origin not in self.version]:
            merge(self.version, {message.origin: message.number})

    def _follow_names(
        self, history: InstanceHistory, channels: Collection[str], origins: VersionVector
    ) -> None:
        """Find out what the names show. Messages of an origin are delivered in their order, so a client that has one
        of them has had those before it. That shows nothing of other origins, unless their messages were accepted
        long before the client received the first one that it names, or after it.

        Where all messages are of one origin, the first named message counts, as documented; the last one shows more.
        """
        choose = max if len(origins) > 1 else min
        numbers: dict[str, int] = {}
        begin = end = float("inf")  # the sequence, and the time, of the first of the named messages
        for name in self._names:
            if (entry := history.get(name)) is not None:
                origin, number, at = entry.message.origin, entry.message.number, entry.at
                begin = min(begin, entry.sequence)
            else:
                found = ((each, last) for each, last in history.evicted.items() if last.unique_id == name)
                origin, last = next(found, ("", None))
                if last is None:
                    continue
                number, at = last.number, last.at
            numbers[origin] = choose(number, numbers.get(origin, number))
            end = min(end, at)
        if not numbers:
            return
        merge(self.version, numbers)
        others = [each for each in origins if each.name not in numbers]
        if not origins.is_complete and end < origins.started + PREDECESSOR_SECONDS:
            return
        if any(numbers.get(each.name, each.base) < each.base for each in origins):
            return  # messages after a named one were lost
        self.recovered = all(_is_settled(each, history, end) for each in others) and not (
            any(each.number > each.base for each in others) and self._has_unnamed(history, channels, begin)
        )

    def _has_unnamed(self, history: InstanceHistory, channels: Collection[str], begin: float) -> bool:
        """Whether a message before the first named one is not covered."""
        entries = history.select(channels, lambda _entry: True)
        self.examined += len(entries)
        return any(entry.sequence < begin and not entry.is_covered_by(self.version) for entry in entries)


def _is_valid(token: ResumeToken, history: InstanceHistory, origins: VersionVector, epoch: float) -> bool:
    """Whether all messages after a token are in the history, or still to come."""
    version, at = token.version, token.at - epoch
    if not version:
        return False
    unknown = [number for name, number in version.items() if origins.get(name) is None]
    if any(unknown) and not origins.is_from_here(version):
        return False
    is_early = at < origins.started + PREDECESSOR_SECONDS and not origins.is_from_here(version)
    if (unknown or not origins.is_complete) and is_early:
        return False
    for origin in origins:
        number = version.get(origin.name, 0)
        evicted = history.evicted.get(origin.name)
        if number < origin.base or (evicted is not None and number < evicted.number):
            is_implied = origin.name not in version and at > origin.heard_at + IMPLIED_SECONDS
            if not is_implied:
                return False
    return True


def _is_settled(origin: MessageOrigin, history: InstanceHistory, end: float) -> bool:
    """Whether what is not kept of an origin was accepted long before `end`."""
    evicted = history.evicted.get(origin.name)
    since = max(
        origin.base_at if origin.base else -SETTLED_SECONDS, evicted.at if evicted else -SETTLED_SECONDS
    )
    return since <= max(0.0, end - SETTLED_SECONDS)


def merge(version: dict[str, int], other: Mapping[str, int]) -> None:
    """Raise the numbers of a version to those of another one."""
    for name, number in other.items():
        if number > version.get(name, -1):
            version[name] = number


def _may_come(origins: VersionVector, name: str, number: int, now: float) -> bool:
    """Whether this node may still receive messages of an origin up to a number; some node has to have them."""
    origin = origins.get(name)
    if origin is None:
        return not origins.is_complete
    return origin.number < number and origin.heard_at > now - SETTLED_SECONDS


class EarlyClients:
    """The clients that had messages from another node which this node has not received yet, and those messages.

    When the messages arrive, these clients do not receive them again. Of a client at most MAX_LISTED origins
    and MAX_EARLY digests are kept: what tokens name may never come.
    """

    def __init__(self) -> None:
        self._versions: dict[Receiver, dict[str, int]] = {}
        self._numbers: dict[str, dict[Receiver, int]] = {}  # by origin
        self._digests: dict[Receiver, tuple[tuple[bytes, ...], float]] = {}  # and when they were named
        self._by_digest: dict[bytes, set[Receiver]] = {}

    def __bool__(self) -> bool:
        return bool(self._versions or self._digests)

    def __contains__(self, receiver: Receiver) -> bool:
        return receiver in self._versions or receiver in self._digests

    def add(self, receiver: Receiver, ahead: Mapping[str, int], early: Sequence[bytes], now: float) -> None:
        """Note that a client has messages beyond those of this node."""
        if len(self._versions) + len(self._digests) >= MAX_EARLY_CLIENTS:
            return
        if ahead:
            merge(self._versions.setdefault(receiver, {}), ahead)
            self._set_version(receiver, self._versions[receiver])
        if early:
            before, _ = self._digests.get(receiver, ((), now))
            self._forget_digests(receiver)
            digests = tuple(dict.fromkeys((*before, *early)))[-MAX_EARLY:]
            self._digests[receiver] = (digests, now)
            for each in digests:
                self._by_digest.setdefault(each, set()).add(receiver)

    def _set_version(self, receiver: Receiver, version: Mapping[str, int]) -> None:
        self._forget_version(receiver)
        if version:
            self._versions[receiver] = dict(list(version.items())[-MAX_LISTED:])
        for name, number in self._versions.get(receiver, {}).items():
            self._numbers.setdefault(name, {})[receiver] = number

    def remove(self, receiver: Receiver) -> None:
        """Forget a client."""
        if self._versions:
            self._forget_version(receiver)
        if self._digests:
            self._forget_digests(receiver)

    def _forget_version(self, receiver: Receiver) -> None:
        for name in self._versions.pop(receiver, ()):
            numbers = self._numbers.get(name, {})
            numbers.pop(receiver, None)
            if not numbers:
                self._numbers.pop(name, None)

    def _forget_digests(self, receiver: Receiver) -> None:
        digests, _ = self._digests.pop(receiver, ((), 0.0))
        for each in digests:
            receivers = self._by_digest.get(each, set())
            receivers.discard(receiver)
            if not receivers:
                self._by_digest.pop(each, None)

    def that_have(self, message: Message) -> Collection[Receiver]:
        """Return the clients that had a message which arrives now."""
        numbers = self._numbers.get(message.origin)
        found = {each for each, number in numbers.items() if message.number <= number} if numbers else set()
        if self._by_digest and (named := self._by_digest.pop(digest(message.unique_id), None)):
            found |= named
            for each in named:
                digests, since = self._digests.pop(each)
                if rest := tuple(d for d in digests if d in self._by_digest):
                    self._digests[each] = (rest, since)
        return found

    def version_of(self, receiver: Receiver) -> Mapping[str, int]:
        """Return the numbers up to which a client had messages before this node."""
        return self._versions.get(receiver, {}) if self._versions else {}

    def digests_of(self, receiver: Receiver) -> tuple[bytes, ...]:
        """Return the digests of further messages that it had before this node."""
        return self._digests[receiver][0] if receiver in self._digests else ()

    def sweep(self, origins: VersionVector, now: float) -> None:
        """Forget what this node has by now, and what will not come any more."""
        for receiver, version in list(self._versions.items()):
            left = {name: number for name, number in version.items() if _may_come(origins, name, number, now)}
            if left != version:
                self._set_version(receiver, left)
        for receiver, (_, since) in list(self._digests.items()):
            if since < now - MAX_AGE:
                self._forget_digests(receiver)


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
