"""What clients of a cluster may expect, and whether they received it.

A client knows everything that was published before its first position and before each gap that it was told of: these
divide what it received into epochs. In an epoch
- no message arrives twice, except those that the client could not name when it resumed, and, after a resume, those
  that were sent to two nodes since the first did not answer: each node may have accepted them as its own;
- every message on its channels whose first POST began in the epoch and that was acknowledged arrives, at the latest
  when all faults have ended;
- messages of the epoch and of one publisher that the same process of a node accepted, each after the receipt of the
  one before, arrive in that order; whatever arrived before a resume that says `recovered: true`, nothing before it is
  missing then.
Polls one after the other on one connection recover, but for a node that has just started and learns of others.
A message that was sent to two nodes has no order. One without a receipt may arrive or not. One whose every holder was
killed before each of the other nodes had it may be lost: it was not passed on.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from tests.faults.mesh import Mesh, MeshNode

GRACE_SECONDS = 1.0  # that a node has to live on, to have processed what was passed to it
REPAIR_SECONDS = 45.0  # in which nodes pass on what a node that has ended left to only some of them


class Sender(NamedTuple):
    """A publisher and a process of a node: their messages have an order."""

    publisher: int
    node: int
    life: int


@dataclass
class Publication:
    """A message. `receipts`: which memories of which nodes acknowledged it, and when (monotonic seconds)."""

    name: str
    instance: str
    channels: frozenset[str]
    number: int
    began: float
    receipts: list[tuple[MeshNode, int, float]] = field(default_factory=list)
    sender: Sender | None = None  # if it was sent once, and acknowledged
    attempts: int = 0


class Kind(Enum):
    """The promises."""

    MISSED = "missed"
    REORDERED = "reordered"
    DOUBLED = "doubled"
    NEEDLESS = "needless gap"
    REJECTED = "rejected"  # what a client sent


class Violation(NamedTuple):
    """A broken promise. `name`: of the message."""

    at: float
    client: str
    kind: Kind
    name: str
    what: str


class Epoch:
    """What a client received between two gaps."""

    def __init__(self, since: float) -> None:
        self.since = since
        self.arrivals: dict[str, float] = {}  # by name, in order
        self.marks: list[float] = []  # when a resume said `recovered: true`
        self.doubled: list[
            tuple[float, str, bool]
        ] = []  # when, what, whether it arrived first in an earlier session


class Record:
    """All that one client sent and received."""

    def __init__(self, client: str, instance: str, channels: Iterable[str]) -> None:
        self.client = client
        self.instance = instance
        self.channels = frozenset(channels)
        self.events: list[tuple[float, str, str]] = []
        self.epochs = [Epoch(math.inf)]
        self.violations: list[Violation] = []
        self.repeatable: set[str] = set()  # had, but not named in the request to resume
        self.resumed_at = -math.inf

    def note(self, at: float, node: str, what: str) -> None:
        """Add an event to the history."""
        self.events.append((at, node, what))

    def begin(self, at: float) -> None:
        """The client knows everything that was published before: it starts, or was told of a gap."""
        self.epochs.append(Epoch(at))

    def receive(self, at: float, node: str, name: str, instance: str, channels: Iterable[str]) -> None:
        """A message arrived."""
        self.note(at, node, name)
        arrivals = self.epochs[-1].arrivals
        if name not in arrivals:
            arrivals[name] = at
        elif name not in self.repeatable:
            self.epochs[-1].doubled.append((at, name, arrivals[name] < self.resumed_at))
        if instance != self.instance or not self.channels.issuperset(channels):
            self.fail(
                at, Kind.REJECTED, name, f"{name} of {instance}, {list(channels)} is not for this client"
            )

    def recover(self, at: float) -> None:
        """A node said that nothing is missing."""
        self.epochs[-1].marks.append(at)

    def fail(self, at: float, kind: Kind, name: str, what: str) -> None:
        """Add a violation."""
        self.violations.append(Violation(at, self.client, kind, name, what))


class Check:
    """Compares what was published with what clients received. With `is_strict`, no message may be lost."""

    def __init__(self, mesh: Mesh, *, is_strict: bool) -> None:
        self.mesh = mesh
        self.is_strict = is_strict
        self.published: dict[str, Publication] = {}

    def violations(self, record: Record) -> list[Violation]:
        """Everything that went wrong for a client."""
        expected = self._expected(record)
        found = list(record.violations)
        for epoch in record.epochs:
            found += self._check_doubled(record, epoch)
            found += self._check_order(record, epoch)
            found += self._check_marks(record, epoch, expected)
        for each in self.missing(record):
            what = f"{each.name} never arrived"
            found.append(Violation(math.inf, record.client, Kind.MISSED, each.name, what))
        return found

    def missing(self, record: Record) -> list[Publication]:
        """What a client still has to receive."""
        epoch = record.epochs[-1]
        return [each for each in self._expected(record, epoch.since) if each.name not in epoch.arrivals]

    def lost(self) -> list[Publication]:
        """The messages that may be lost."""
        return [each for each in self.published.values() if each.receipts and self._is_lost(each)]

    def missed_of_lost(self, records: Iterable[Record]) -> set[str]:
        """The names of those that a client missed without a report."""
        strict = Check(self.mesh, is_strict=True)
        strict.published = {each.name: each for each in self.lost()}
        found = [each for record in records for each in strict.violations(record)]
        return {each.name for each in found if each.kind is Kind.MISSED}

    def _expected(self, record: Record, since: float = -math.inf) -> list[Publication]:
        return [
            each
            for each in self.published.values()
            if each.began >= since
            and each.receipts
            and each.instance == record.instance
            and not each.channels.isdisjoint(record.channels)
            and (self.is_strict or not self._is_lost(each))
        ]

    def _check_doubled(self, record: Record, epoch: Epoch) -> Iterator[Violation]:
        for at, name, is_after_resume in epoch.doubled:
            if not is_after_resume or (name in self.published and self.published[name].attempts == 1):
                yield Violation(at, record.client, Kind.DOUBLED, name, f"{name} arrived twice")

    def _check_order(self, record: Record, epoch: Epoch) -> Iterator[Violation]:
        latest: dict[Sender, Publication] = {}
        for name, at in epoch.arrivals.items():
            each = self.published.get(name)
            if each is None or each.sender is None or each.began < epoch.since:
                continue
            before = latest.get(each.sender)
            if before is not None and before.number > each.number:
                what = f"{name} arrived after {before.name}"
                yield Violation(at, record.client, Kind.REORDERED, name, what)
            else:
                latest[each.sender] = each

    def _check_marks(
        self, record: Record, epoch: Epoch, expected: Iterable[Publication]
    ) -> Iterator[Violation]:
        """At each mark, no message is missing before one that arrived."""
        by_sequence: dict[Sender, list[Publication]] = defaultdict(list)
        for each in expected:
            if each.sender is not None and each.began >= epoch.since:
                by_sequence[each.sender].append(each)
        for sequence in by_sequence.values():
            first_later = math.inf  # when the first of the later ones arrived
            for each in sorted(sequence, key=lambda each: -each.number):
                arrived = epoch.arrivals.get(each.name, math.inf)
                mark = next((at for at in epoch.marks if first_later < at < arrived), None)
                if mark is not None:
                    what = f"{each.name} was missing at `recovered: true`, a later one was not"
                    yield Violation(mark, record.client, Kind.MISSED, each.name, what)
                first_later = min(first_later, arrived)

    def _is_lost(self, publication: Publication) -> bool:
        """Whether all that had it ended before each of the other nodes had it."""
        ends: dict[int, float] = {}  # by node
        for node, memory, _ in publication.receipts:
            ends[node.number] = node.lost_at(memory)
        given_up = max(ends.values()) + REPAIR_SECONDS
        for (_, receiver), link in self.mesh.links.items():
            if publication.name in link.passed and receiver not in ends:
                passed = link.passed[publication.name]
                end = self.mesh.nodes[receiver].end_after(passed)
                if end > passed + GRACE_SECONDS:
                    ends[receiver] = end if end < given_up else math.inf
        return len(ends) < len(self.mesh.nodes) and max(ends.values()) < math.inf
