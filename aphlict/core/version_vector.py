"""The version vector of a node: up to which number it has the messages of each origin.

An origin is one start of a node. It numbers the messages that it accepts from publishers 1, 2, 3, …, those of all
instances together.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from math import inf
from operator import attrgetter

from msgspec import Struct

from aphlict.core.message import Message, random_name

NAME_LENGTH = 8  # letters and digits
HOLD_SECONDS = 1.0  # for which a message waits for those before it
MAX_HELD = 1000  # messages of one origin that wait
MAX_HELD_SIZE = 16 * 1024 * 1024  # bytes of them
LISTED_SECONDS = 600.0  # since an origin was last heard, for which resume tokens list it
SILENT_SECONDS = (
    20.0  # without a message or greeting, of which there is one in 15 s: the node is gone or cut off
)
# Since an origin was last heard, after which a token that does not list it is understood to cover it: its node listed
# it for LISTED_SECONDS. The difference allows for delays and for clocks that differ.
IMPLIED_SECONDS = 300.0
MAX_LISTED = 64  # origins in a resume token: more after 64 restarts within LISTED_SECONDS
MAX_ORIGINS = 1024  # of which those that were heard last are remembered


class OriginState(Struct, frozen=True, array_like=True):
    """An origin as one process describes it to another of the same node; times are monotonic seconds.

    `heard_at` is infinite for the origin of the present hub.
    """

    name: str
    number: int
    base: int
    base_at: float
    heard_at: float
    has_ended: bool


class MessageOrigin:
    """One origin, as far as this node knows it.

    This node has accepted all messages from `base` (exclusive) to `number`. Those up to `base` were never here: they
    were published before the first contact, or they are lost; `base_at` is when that was noted. `heard_at` is the
    time of the last message, from whichever node, or greeting; `greeted_at` that of the last greeting, which its own
    node sends, and `after` up to which number that node had sent its messages then, or given them up. `has_ended`:
    its node has another origin now. Times are monotonic seconds.
    """

    __slots__ = (
        "_numbers",
        "_sequences",
        "_start",
        "after",
        "base",
        "base_at",
        "due",
        "fingerprint",
        "greeted_at",
        "has_ended",
        "heard_at",
        "held",
        "held_size",
        "name",
        "number",
        "promised",
    )

    def __init__(self, name: str, number: int, now: float) -> None:
        self.name = name
        self.number = self.base = number
        self.base_at = self.heard_at = now
        self.greeted_at = -inf
        self.after = 0
        self.has_ended = False
        self.fingerprint = ""  # of its node, once that has sent a greeting
        self.held: dict[int, Message] = {}  # messages that wait for those before them
        self.held_size = 0  # bytes
        self.promised = 0  # messages up to this number exist, and are not on their way
        self.due = inf  # when missing messages are given up
        # Which messages were accepted when: both arrays increase. Older ones are trimmed.
        self._start = number  # before them
        self._numbers = array("Q")
        self._sequences = array("Q")

    def record(self, number: int, sequence: int) -> None:
        """Note that the message with this number was accepted when the history had this sequence."""
        if number > self.number:
            self.number = number
            self._numbers.append(number)
            self._sequences.append(sequence)

    def skip_to(self, number: int, sequence: int, now: float) -> None:
        """Give up the missing messages up to this number. `sequence`: a new one, as what was accepted before does
        not cover them."""
        if number > self.number:
            self.record(number, sequence)
            self.base, self.base_at = number, now

    def number_at(self, sequence: int) -> int:
        """Return up to which number messages had been accepted when the history had this sequence."""
        place = bisect_right(self._sequences, sequence)
        if place == len(self._sequences):
            return self.number
        return self._numbers[place - 1] if place else self._start

    def sequence_before(self, number: int) -> int | float:
        """Return a sequence after which all kept messages beyond this number were accepted."""
        place = bisect_right(self._numbers, number)
        if place == len(self._numbers):
            return inf
        return self._sequences[place] - 1 if place else 0

    def trim(self, sequence: int) -> None:
        """Forget the sequences before the oldest message in the history."""
        place = bisect_left(self._sequences, sequence)
        if place:
            self._start = self._numbers[place - 1]
        del self._sequences[:place], self._numbers[:place]

    def is_silent(self, now: float) -> bool:
        """Whether its node sends nothing any more, as far as this node can tell."""
        return self.has_ended or max(self.greeted_at, self.heard_at) < now - SILENT_SECONDS

    def is_cut_off(self, now: float) -> bool:
        """Whether its node has sent this one no request for long."""
        return self.has_ended or self.greeted_at < now - SILENT_SECONDS

    def state(self) -> OriginState:
        """Describe it to another process of this node."""
        return OriginState(self.name, self.number, self.base, self.base_at, self.heard_at, self.has_ended)


class VersionVector:
    """All origins that a node knows, its own among them unless it is an edge.

    `is_complete`: every configured peer has been heard since the start. Before that, messages of a peer may exist
    that were sent to this node's predecessor, and that this node does not know of. `awaited`: origins that other
    nodes have heard recently, and this one has not. `gap_at`: when messages were last given up. `compared_at`: until
    then, this node has everything that others have, or has given it up. `since`: when this node was started, while
    `started` is that of this process, which may have replaced another one.
    """

    def __init__(self, own: str | None, now: float) -> None:
        self.started = self.since = now
        self.own = None if own is None else MessageOrigin(own, 0, now)
        if self.own is not None:
            self.own.heard_at = inf
        self.is_complete = True
        self.awaited: set[str] = set()
        self.gap_at = -inf
        self.compared_at = inf
        self._by_name: dict[str, MessageOrigin] = {} if self.own is None else {self.own.name: self.own}

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[MessageOrigin]:
        return iter(self._by_name.values())

    @property
    def is_alone(self) -> bool:
        """Whether no other process or node can have messages before this one: none is known or expected."""
        return self.own is not None and self.is_complete and len(self) == 1

    @property
    def is_lacking(self) -> bool:
        """Whether messages exist elsewhere that this node waits for."""
        return any(origin.promised > origin.number for origin in self)

    def get(self, name: str) -> MessageOrigin | None:
        """Return a known origin."""
        return self._by_name.get(name)

    def register(self, name: str, number: int, now: float) -> MessageOrigin:
        """Return a new origin. The messages up to `number` were published before the first contact."""
        origin = self._by_name[name] = MessageOrigin(name, number, now)
        self.awaited.discard(name)
        if len(self._by_name) > MAX_ORIGINS:
            others = (each for each in self if each is not self.own and each is not origin)
            del self._by_name[min(others, key=lambda each: each.heard_at).name]
        return origin

    def version(self) -> dict[str, int]:
        """Return up to which number this node has the messages of each origin."""
        return {origin.name: origin.number for origin in self}

    def version_at(self, sequence: int, now: float) -> dict[str, int]:
        """Return the version when the history had this sequence, without origins that have been silent for long.

        The origin of this node is the first one. A node that is cut off lists origins for longer: others may have
        more of their messages.
        """
        since = min(now, self.compared_at) - LISTED_SECONDS
        listed = [origin for origin in self if origin.heard_at > since]
        if len(listed) > MAX_LISTED:  # a node is restarted again and again: its origins have no messages
            listed = [origin for origin in listed if origin.number or origin.heard_at == inf]
        if len(listed) > 1:
            listed = sorted(listed, key=_HEARD_AT, reverse=True)[:MAX_LISTED]
        return {origin.name: origin.number_at(sequence) for origin in listed}

    def is_from_here(self, version: Mapping[str, int]) -> bool:
        """Whether this node made a version: its own origin is the first one, which is always heard."""
        first = self._by_name.get(next(iter(version), ""))
        return first is not None and first.heard_at == inf

    def sequence_of(self, version: Mapping[str, int]) -> int:
        """Return a sequence up to which everything is covered by a version."""
        found: float = inf
        for origin in self:
            number = version.get(origin.name, 0)
            if number < origin.number:
                found = min(found, origin.sequence_before(number))
        return int(found) if found < inf else 2**63

    def trim(self, sequence: int) -> None:
        """Forget what concerns messages before this sequence. To be called every few seconds."""
        for origin in self:
            origin.trim(sequence)

    def states(self) -> list[OriginState]:
        """Describe all to another process of this node."""
        return [origin.state() for origin in self]


_HEARD_AT = attrgetter("heard_at")


def new_origin_name() -> str:
    """Return a name for a start of a node."""
    return random_name(NAME_LENGTH)
