"""This node and the one at the address of a peer: their names, and how far they are."""

import time
from collections.abc import Collection, Iterable, Mapping
from math import inf

from aphlict.cluster.http_client import PeerIdentity
from aphlict.cluster.outbox import Envelope
from aphlict.core.history import Entry
from aphlict.core.sequencer import Report
from aphlict.core.version_vector import SILENT_SECONDS

MAX_FINGERPRINTS = 8  # of earlier processes of a node that are remembered


class LocalNode:
    """This node, as its peers see it. `last_number` is that of its last own message."""

    def __init__(self, fingerprint: str, origin: str) -> None:
        self.fingerprint = fingerprint
        self.origin = origin
        self.last_number = 0
        self.started = time.monotonic()

    def greeting(self, after: int, dropped_at: float) -> str:
        """Return the value of ORIGIN_FIELD, see `Greeting`. `dropped_at`: when a message was last given up."""
        return f"{self.origin} {after} {time.monotonic() - max(self.started, dropped_at):.3f}"


class RemoteNode:
    """The node at the address of a peer.

    `reports` are the last ones; None from a Node.js server, and from an earlier version, which number no messages.
    """

    def __init__(self, local: LocalNode) -> None:
        self.accepts_lists = False
        self.has_responded = False
        self.reports: Mapping[str, Report] | None = None
        self._local = local
        self._fingerprints: dict[str, None] = {}  # of its processes, the current one last
        self._has_greeted = False
        self._compared_at = time.monotonic()
        self._repaired: dict[
            str, int
        ] = {}  # by origin: the last message that was sent again on this connection

    @property
    def fingerprint(self) -> str | None:
        """Its current fingerprint, if known."""
        return next(reversed(self._fingerprints), None)

    @property
    def is_self(self) -> bool:
        """Whether it is this node."""
        return self.fingerprint == self._local.fingerprint

    @property
    def is_complete(self) -> bool:
        """Whether everything is known that it may have sent to this node's predecessor."""
        has_no_numbers = self.has_responded and self.reports is None
        return self.is_self or has_no_numbers or self._has_greeted

    @property
    def compared_at(self) -> float:
        """Until when this node has found out what it lacks of what that one has."""
        has_no_numbers = self.has_responded and self.reports is None
        return inf if self.is_self or has_no_numbers else self._compared_at

    def on_reports(self, reports: Mapping[str, Report] | None) -> None:
        """Note how far it is."""
        self.reports = reports
        self._compared_at = time.monotonic()

    def on_connected(self) -> None:
        """There is a new connection: it may be another process."""
        self._repaired.clear()

    def on_response(self, identity: PeerIdentity) -> None:
        """Note the names in a response."""
        self.has_responded = True
        self.accepts_lists = identity.accepts_lists
        fingerprint = identity.fingerprint
        if fingerprint is not None and fingerprint != self.fingerprint:
            self._fingerprints.pop(fingerprint, None)
            self._fingerprints[fingerprint] = None
            if len(self._fingerprints) > MAX_FINGERPRINTS:
                del self._fingerprints[next(iter(self._fingerprints))]

    def on_greeted(self, fingerprints: Collection[str]) -> None:
        """Note that nodes with these fingerprints have greeted this one."""
        self._has_greeted = self._has_greeted or not self._fingerprints.keys().isdisjoint(fingerprints)

    def needs(self, envelope: Envelope) -> bool:
        """Whether to send it a message.

        It needs all messages of this node: their numbers have no holes. It needs others unless it has them, or
        receives them from their own node. Fingerprints of its earlier processes count: a node that has not noticed
        its restart still uses the old one in `touched`, and sends it the message all the same.
        """
        if self.reports is not None:
            origin = envelope.message.origin
            if envelope.is_repair or origin == self._local.origin:
                return True
            if (report := self.reports.get(origin)) is not None and _is_greeted(report):
                return False
        return self._fingerprints.keys().isdisjoint(envelope.touched)

    def not_repaired(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return those of the messages that have not been sent to it again yet, and note that they are now."""
        new = [each for each in entries if each.message.number > self._repaired.get(each.message.origin, 0)]
        for each in new:
            self._repaired[each.message.origin] = each.message.number
        return new


def _is_greeted(report: Report) -> bool:
    """Whether a node receives requests from the node of an origin."""
    return report.greeted is not None and report.greeted < SILENT_SECONDS and not report.has_ended
