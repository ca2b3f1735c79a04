"""The order of messages from other nodes: those of each origin are accepted by their numbers."""

import logging
from collections.abc import Callable, Iterator, Mapping
from math import inf

from msgspec import Struct

from aphlict import log_events
from aphlict.core.history import Entry, HistoryStore
from aphlict.core.message import Message
from aphlict.core.version_vector import (
    HOLD_SECONDS,
    MAX_HELD,
    MAX_HELD_SIZE,
    MAX_ORIGINS,
    NAME_LENGTH,
    SILENT_SECONDS,
    MessageOrigin,
    VersionVector,
)

log = logging.getLogger(__name__)

MAX_NUMBER = 2**53  # that is accepted from another node
REPAIR_SECONDS = 30.0  # within which other nodes send what they have of a node that is gone


class Greeting(Struct, frozen=True):
    """Sent by a node with every request: its fingerprint and its origin.

    It has sent all its own messages up to the number `after` on this way, or will never send them. `age`: for how
    many seconds it has existed, and has given up none of them.
    """

    fingerprint: str
    origin: str
    after: int
    age: float


class Report(Struct, frozen=True, array_like=True):
    """How far a node is with an origin: the number up to which it has the messages, and the seconds since the last
    message and the last greeting (None without one). `has_ended`: the origin's node has another origin now."""

    number: int
    heard: float
    greeted: float | None
    has_ended: bool = False


class Sequencer:
    """Puts messages of other nodes into the order of their numbers.

    `accept` is called with each message when its turn comes. A message whose predecessor is missing waits for it:
    with MAX_HELD others of MAX_HELD_SIZE bytes at most, and for HOLD_SECONDS unless their node has announced that it
    is still to come. Then what is missing is given up, and `on_gap` is called. `on_contact` is called when an origin
    is new.
    """

    def __init__(
        self,
        origins: VersionVector,
        history: HistoryStore,
        accept: Callable[[Message, float], int | None],
    ) -> None:
        self._origins = origins
        self._history = history
        self._accept = accept
        self.lost = 0  # messages that were given up
        self.on_gap: Callable[[], None] = _do_nothing
        self.on_contact: Callable[[], None] = _do_nothing

    def receive(self, message: Message, now: float) -> int | None:
        """Accept a message, now or when those before it have come. Returns the number of receivers, None for a
        message that is known."""
        origin = self._origins.get(message.origin)
        if origin is None:
            origin = self._origins.register(message.origin, 0, now)
            self.on_contact()
        if message.number <= origin.number or origin is self._origins.own:
            return None
        origin.heard_at = max(origin.heard_at, now)  # that of the hub of an edge is infinite
        if message.number > origin.number + 1:
            self._hold(origin, message, now)
            return 0
        matched = self._accept(message, now)
        self._release(origin, now)
        return matched

    def _hold(self, origin: MessageOrigin, message: Message, now: float) -> None:
        if message.number in origin.held:
            return
        origin.held[message.number] = message
        origin.held_size += message.memory_size
        origin.due = min(origin.due, now + HOLD_SECONDS)
        if len(origin.held) > MAX_HELD or origin.held_size > MAX_HELD_SIZE:
            self._give_up(origin, now)

    def _release(self, origin: MessageOrigin, now: float) -> None:
        """Accept the messages whose turn has come."""
        if not origin.held and origin.due == inf:
            return
        for number in sorted(origin.held):
            if number > origin.number + 1:
                break
            message = origin.held.pop(number)
            origin.held_size -= message.memory_size
            if number > origin.number:
                self._accept(message, now)
        if not origin.held and origin.promised <= origin.number:
            origin.due = inf

    def _give_up(self, origin: MessageOrigin, now: float) -> None:
        """Go on without the messages that are missing before the next one that is here."""
        number = min(origin.held) - 1 if origin.held else origin.promised
        origin.due = inf
        self._skip(origin, number, now)
        self._release(origin, now)
        if origin.held or origin.promised > origin.number:
            origin.due = now + HOLD_SECONDS

    def _skip(self, origin: MessageOrigin, number: int, now: float) -> None:
        """Give up messages that clients of this node should have received."""
        lost = number - origin.number
        origin.skip_to(number, self._history.skip_sequence(), now)
        self.lost += lost
        self._origins.gap_at = now
        name = origin.fingerprint or origin.name
        log.warning(log_events.MESSAGES_LOST, lost, name)
        self.on_gap()

    def release(self, now: float) -> None:
        """Accept the messages whose turn has come since another process described what this one has."""
        for origin in list(self._origins):
            self._release(origin, now)

    def run(self, now: float) -> None:
        """Give up what is overdue. To be called several times a second."""
        for origin in list(self._origins):
            if origin.due > now:
                continue
            if self._is_still_to_come(origin, now):
                origin.due = now + HOLD_SECONDS
            else:
                self._give_up(origin, now)

    def _is_still_to_come(self, origin: MessageOrigin, now: float) -> bool:
        """Whether the node of an origin is going to send what is missing."""
        if origin.greeted_at == -inf:  # another node was faster
            is_awaited = not self._origins.is_complete and not origin.has_ended
            return is_awaited and now < origin.base_at + SILENT_SECONDS
        # It sends messages of different instances in separate requests, which may take seconds.
        return origin.number >= origin.after and not origin.is_cut_off(now)

    def on_greeting(self, greeting: Greeting, now: float) -> None:
        """Note what a node says about itself."""
        origin, own = self._origins.get(greeting.origin), self._origins.own
        if own is not None and origin is own:
            return
        if origin is None:
            origin = self._origins.register(greeting.origin, 0, now)
        if origin.greeted_at == -inf:
            self.on_ended(greeting.fingerprint)
            self._on_first_greeting(origin, greeting, now)
        origin.fingerprint, origin.has_ended = greeting.fingerprint, False
        origin.greeted_at = origin.heard_at = now
        origin.after = greeting.after
        self._promise(origin, greeting.after, now + HOLD_SECONDS)
        self._release(origin, now)

    def _on_first_greeting(self, origin: MessageOrigin, greeting: Greeting, now: float) -> None:
        """Begin with what a node sends from now on, if it is older than this one, and has given up no message since:
        those before that were for this node's predecessor."""
        # The edges of a hub may know the origin from the hub's predecessor.
        is_new = origin.number == 0 and origin.base_at >= self._origins.started
        if now - greeting.age <= self._origins.since and is_new and greeting.after > 0:
            origin.skip_to(greeting.after, self._history.skip_sequence(), now)
        self.on_contact()

    def on_ended(self, fingerprint: str) -> None:
        """Note that a node with this fingerprint has another origin now, or has been replaced."""
        for origin in self._origins:
            if fingerprint and origin.fingerprint == fingerprint:
                origin.has_ended = True

    def _promise(self, origin: MessageOrigin, number: int, due: float) -> None:
        if number > origin.number:
            origin.promised = max(origin.promised, number)
            origin.due = min(origin.due, due)

    def report(self, now: float) -> dict[str, Report]:
        """Report how far this node is."""
        own = self._origins.own
        return {
            origin.name: Report(
                origin.number,
                0.0 if origin is own else round(now - origin.heard_at, 3),
                _age(origin, now, is_own=origin is own),
                origin.has_ended,
            )
            for origin in self._origins
        }

    def on_report(self, reports: Mapping[str, Report], now: float) -> None:
        """Learn from another node of nodes that are gone: messages of theirs which this node never received exist."""
        for name, report in reports.items():
            origin = self._origins.get(name)
            if not _is_possible(name, report) or (origin is not None and origin is self._origins.own):
                continue
            if not _is_silent(report):
                if origin is None and len(self._origins.awaited) < MAX_ORIGINS:
                    self._origins.awaited.add(name)  # its node may be about to greet this one
                continue
            if origin is None:
                heard_at = now - report.heard
                # Otherwise it was there while this node was running, but cut off from it.
                is_older = heard_at <= self._origins.since
                origin = self._origins.register(name, report.number if is_older else 0, now)
                origin.heard_at = heard_at
                self.on_contact()
            origin.has_ended = origin.has_ended or report.has_ended
            if origin.is_silent(now):
                self._promise(origin, report.number, now + REPAIR_SECONDS)

    def lacking(
        self, reports: Mapping[str, Report], history: HistoryStore, sent: int, now: float
    ) -> Iterator[Entry]:
        """Iterate over the messages that another node lacks according to its report, and that nobody will send it.

        Those are messages of nodes that are gone, and own ones up to the number `sent`: the other node received them,
        but lost them when one of its processes was killed.
        """
        for origin in self._origins:
            report = reports.get(origin.name)
            if report is None or report.number >= origin.number:
                continue
            is_own = origin is self._origins.own
            if is_own or origin.has_ended or (origin.is_silent(now) and _is_silent(report)):
                end = sent if is_own else origin.number
                first = origin.sequence_before(report.number)
                for entry in history.entries(int(first)) if first < inf else ():
                    message = entry.message
                    if message.origin == origin.name and report.number < message.number <= end:
                        yield entry


def _age(origin: MessageOrigin, now: float, *, is_own: bool) -> float | None:
    if is_own:
        return 0.0
    return None if origin.greeted_at == -inf else round(now - origin.greeted_at, 3)


def _is_possible(name: str, report: Report) -> bool:
    """Whether a node can have made a report: tokens must be able to list its origin."""
    is_name = len(name) == NAME_LENGTH and name.isascii() and name.isalnum()
    return is_name and 0 <= report.number <= MAX_NUMBER and report.heard >= 0


def _is_silent(report: Report) -> bool:
    last = min(report.heard, report.heard if report.greeted is None else report.greeted)
    return report.has_ended or last > SILENT_SECONDS


def _do_nothing() -> None:
    """Take the place of a callback that nothing needs."""
