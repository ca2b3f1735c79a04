"""What is told of one peer: counters for its status, and lines in the log for what changes."""

import logging
import time

from aphlict.errors import PeerError

log = logging.getLogger(__name__)

SAID_AT_MOST_EVERY = 60.0  # seconds
MOST_CAUSES = 8  # that are said while it is away


class PeerReport:
    """Counts, and says what changed; a thing that repeats is counted and said with its count."""

    def __init__(self, name: str) -> None:
        self.posts = 0
        self.sent = 0
        self.dropped = 0
        self.last_error: str | None = None
        self._name = name
        self._away_since: float | None = None
        self._causes: set[str] = set()  # said since it went away
        self._sent_before = 0
        self._dropped_unsaid = 0
        self._dropped_since = 0.0
        self._refused_unsaid = 0
        self._refused_said: float | None = None

    @property
    def down_for(self) -> float | None:
        """Seconds since it went away."""
        return None if self._away_since is None else time.monotonic() - self._away_since

    def say_who(self, fingerprint: str) -> None:
        """The first answer of a process over there."""
        log.info("peer %s is node %s", self._name, fingerprint)

    def say_nameless(self) -> None:
        """The first answer, without a fingerprint."""
        log.info("peer %s is a Node.js server: it gets its messages one by one", self._name)

    def say_self(self) -> None:
        """It is this node."""
        self.last_error = self._away_since = None
        log.info("peer %s is this node itself: nothing is sent there", self._name)

    def say_away(self, error: PeerError) -> None:
        """A try failed; the first of a row is said, and a cause that is another than those before it."""
        cause = self.last_error = str(error)
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._sent_before = self.sent
            self._causes = {cause}
            log.warning("peer %s is away: %s", self._name, error)
        elif cause not in self._causes and len(self._causes) < MOST_CAUSES:
            self._causes.add(cause)
            log.warning("peer %s is still away: %s", self._name, error)

    def say_back(self) -> None:
        """It has caught up."""
        if self._away_since is not None:
            away, caught = time.monotonic() - self._away_since, self.sent - self._sent_before
            log.info("peer %s is back after %.1f s; %d messages waited for it", self._name, away, caught)
        self.last_error = self._away_since = None
        self.say_losses()

    def add_dropped(self, count: int) -> None:
        """Messages went past the bounds of the queue."""
        now = time.monotonic()
        if count and not self._dropped_unsaid:
            self._dropped_since = now
        self.dropped += count
        self._dropped_unsaid += count
        if self._dropped_unsaid and now - self._dropped_since > SAID_AT_MOST_EVERY:
            self.say_losses()

    def add_refused(self, unique_id: str, error: PeerError) -> None:
        """The peer refused one message for good."""
        now = time.monotonic()
        self.dropped += 1
        self.last_error = str(error)
        if self._refused_said is not None and now - self._refused_said < SAID_AT_MOST_EVERY:
            self._refused_unsaid += 1
            return
        self._refused_said = now
        self._say_refused()
        log.warning("peer %s: message %s is dropped: %s", self._name, unique_id, error)

    def say_losses(self) -> None:
        """Say what was counted and not said yet."""
        if self._dropped_unsaid:
            log.warning("peer %s: %d messages dropped, too old or too many", self._name, self._dropped_unsaid)
        self._dropped_unsaid = 0
        self._say_refused()

    def say_unsent(self, count: int) -> None:
        """The end came before these were sent."""
        if count:
            log.warning("peer %s: %d messages were not sent before the end", self._name, count)

    def _say_refused(self) -> None:
        if self._refused_unsaid:
            log.warning("peer %s: %d more messages were refused", self._name, self._refused_unsaid)
        self._refused_unsaid = 0
