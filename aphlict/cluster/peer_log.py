"""Counters and log lines of one peer."""

import logging
import time

from aphlict import log_events
from aphlict.core.message import Message
from aphlict.errors import PeerError

log = logging.getLogger(__name__)

MIN_INTERVAL = 60.0  # seconds between two lines about dropped, or rejected, messages
MAX_CAUSES = 8  # that are logged while it is unreachable


class PeerLog:
    """Counts for the status, and logs changes; repeated events are logged once, with their count."""

    def __init__(self, name: str) -> None:
        self.posts = 0
        self.sent = 0
        self.dropped = 0
        self.last_error: str | None = None
        self.last_error_code: str | None = None
        self._name = name
        self._down_since: float | None = None  # monotonic seconds
        self._causes: set[str] = set()  # logged since it went down
        self._sent_before = 0
        self._unlogged_drops = 0
        self._dropping_since = 0.0
        self._unlogged_rejections = 0
        self._rejection_logged_at: float | None = None

    @property
    def down_for(self) -> float | None:
        """Seconds since it went down; None if it is up."""
        return None if self._down_since is None else time.monotonic() - self._down_since

    def on_identified(self, fingerprint: str) -> None:
        """The first response of a process."""
        log.info(log_events.PEER_IDENTIFIED, self._name, fingerprint)

    def on_nodejs_server(self) -> None:
        """The first response, without a fingerprint."""
        log.info(log_events.PEER_IS_NODEJS, self._name)

    def on_self(self) -> None:
        """The peer is this node."""
        self._clear_error()
        log.info(log_events.PEER_IS_SELF, self._name)

    def on_failure(self, error: PeerError) -> None:
        """An attempt failed. The first failure of a row is logged, and then each new cause."""
        cause = self.last_error = str(error)
        self.last_error_code = error.code
        if self._down_since is None:
            self._down_since = time.monotonic()
            self._sent_before = self.sent
            self._causes = {cause}
            log.warning(log_events.PEER_UNREACHABLE, self._name, error)
        elif cause not in self._causes and len(self._causes) < MAX_CAUSES:
            self._causes.add(cause)
            log.warning(log_events.PEER_STILL_UNREACHABLE, self._name, error)

    def on_up(self) -> None:
        """It has received all that was queued while it was down."""
        if (seconds := self.down_for) is not None:
            sent = self.sent - self._sent_before
            log.info(log_events.PEER_UP, self._name, seconds, sent)
        self._clear_error()
        self.flush()

    def _clear_error(self) -> None:
        self.last_error = self.last_error_code = self._down_since = None

    def on_dropped(self, count: int) -> None:
        """The queue dropped `count` messages; 0 only logs earlier ones that are due."""
        now = time.monotonic()
        if count and not self._unlogged_drops:
            self._dropping_since = now
        self.dropped += count
        self._unlogged_drops += count
        if self._unlogged_drops and now - self._dropping_since > MIN_INTERVAL:
            self.flush()

    def on_message_rejected(self, message: Message, error: PeerError) -> None:
        """The peer rejected a message permanently."""
        now = time.monotonic()
        self.dropped += 1
        self.last_error, self.last_error_code = str(error), error.code
        if self._rejection_logged_at is not None and now - self._rejection_logged_at < MIN_INTERVAL:
            self._unlogged_rejections += 1
            return
        self._rejection_logged_at = now
        self._flush_rejections()
        trace = log_events.trace_of(message.traceparent)
        log.warning(log_events.PEER_MESSAGE_REJECTED, self._name, message.unique_id, error, trace)

    def on_unsent(self, count: int) -> None:
        """The node stops with `count` messages in the queue."""
        if count:
            log.warning(log_events.PEER_MESSAGES_UNSENT, self._name, count)

    def flush(self) -> None:
        """Log the counts that have not been logged."""
        if self._unlogged_drops:
            log.warning(log_events.PEER_MESSAGES_DROPPED, self._name, self._unlogged_drops)
        self._unlogged_drops = 0
        self._flush_rejections()

    def _flush_rejections(self) -> None:
        if self._unlogged_rejections:
            log.warning(log_events.PEER_MESSAGES_REJECTED, self._name, self._unlogged_rejections)
        self._unlogged_rejections = 0
