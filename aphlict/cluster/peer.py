"""One peer: its identity, its queue, and the task that sends it messages."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from http import HTTPStatus
from math import inf
from urllib.parse import quote

from aphlict import log_events
from aphlict.cluster.http_client import (
    PeerAddress,
    PeerConnection,
    PeerIdentity,
    read_body,
    read_receipt,
    read_status,
)
from aphlict.cluster.nodes import LocalNode, RemoteNode
from aphlict.cluster.outbox import Envelope, Outbox, PeerOptions
from aphlict.cluster.peer_log import PeerLog
from aphlict.core.history import Entry
from aphlict.core.sequencer import Report
from aphlict.errors import PeerDisconnected, PeerError, PeerHTTPError

log = logging.getLogger(__name__)

FIRST_SECONDS = 30.0  # of a node, in which it learns from its peers about its predecessor
FIRST_PROBE_INTERVAL = 1.0  # seconds
PERMANENT_REJECTIONS = frozenset(  # of a message: sending it again is useless
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    }
)


class PeerState(Enum):
    """The state of a peer as the status reports it."""

    UNKNOWN = "unknown"  # no attempt has ended yet
    UP = "up"
    DOWN = "down"  # the last attempt failed, or messages that were queued before are still being sent
    SELF = "self"  # this node, listed among its own peers


class Peer:
    """Accepts messages with `put`, and sends them in order while `run` runs.

    `local` is this node. `on_report` is called with the report of the peer, regularly; `on_replaced` with a former
    fingerprint.
    """

    def __init__(
        self,
        address: PeerAddress,
        local: LocalNode,
        options: PeerOptions,
        on_report: Callable[["Peer", Mapping[str, Report]], None],
        on_replaced: Callable[[str], None],
    ) -> None:
        self.address = address
        self.state = PeerState.UNKNOWN
        self.log = PeerLog(str(address))
        self._local = local
        self._on_report = on_report
        self._on_replaced = on_replaced
        self._options = options
        self.node = RemoteNode(local)
        self._outbox = Outbox(options)
        self._in_flight: list[Envelope] = []
        self._batch_count = options.max_batch_count  # of the next batch, at most
        self._http = PeerConnection(
            address, local.fingerprint, options.response_timeout, self._on_idle_close, self._greeting
        )
        self._is_probed = False  # the peer has responded with its status on this connection
        self._may_be_stale = False  # the next failure may only mean that an idle connection was closed
        self._backlog = 0  # how many of the messages that were queued when it came back are still queued
        self._responded_at = self._probed_at = time.monotonic()
        self._dropped_at = -inf  # when a message was last given up
        self._backoff = 0.0  # seconds
        self._wake = asyncio.Event()
        self._retry_now = asyncio.Event()  # ends the pause between two attempts
        self._is_closing = False
        self._has_given_up = False

    @property
    def fingerprint(self) -> str | None:
        """The current fingerprint of its node, if known."""
        return self.node.fingerprint

    @property
    def queued(self) -> int:
        """The number of messages that it has not accepted yet."""
        return len(self._outbox) + len(self._in_flight)

    @property
    def round_trip(self) -> float | None:
        """The time of the last request that it answered, in seconds."""
        return self._http.round_trip

    def needs(self, envelope: Envelope) -> bool:
        """Whether to send it a message."""
        return self.state is not PeerState.SELF and self.node.needs(envelope)

    @property
    def sent_number(self) -> int:
        """The number up to which this node's own messages have been sent, or dropped."""
        origin = self._local.origin
        in_flight = [each.message.number for each in self._in_flight if each.message.origin == origin]
        first = min(filter(None, [*in_flight, self._outbox.first_number(origin)]), default=None)
        return self._local.last_number if first is None else first - 1

    def _greeting(self) -> str:
        return self._local.greeting(self.sent_number, self._dropped_at)

    def _on_dropped(self, count: int) -> None:
        if count:
            self._dropped_at = time.monotonic()
        self.log.on_dropped(count)

    def repair(self, entries: Iterable[Entry], now: float) -> None:
        """Queue messages that the peer lacks, and that nobody else sends it.

        Those of this node come before all queued ones, as their numbers do.
        """
        sender = self._local
        missing = [
            Envelope(entry.message, sender.fingerprint, (self,), now, is_repair=True)
            for entry in self.node.not_repaired(entries)
        ]
        self._outbox.put_back([each for each in missing if each.message.origin == sender.origin])
        for each in missing:
            if each.message.origin != sender.origin:
                self.put(each)
        self._wake.set()

    def probe_now(self) -> None:
        """Request its status as soon as possible."""
        self._probed_at = -inf
        self._wake.set()

    def update_address(self, address: PeerAddress) -> None:
        """Use other credentials from now on. Closes the connection if the contents of the files have changed."""
        if address.files != self.address.files:
            self._http.close()
            self._wake.set()
        self.address = self._http.address = address
        self.retry_now()

    async def get(self, target: str) -> bytes:
        """Return the body of the response to a GET, on a connection of its own. Raises PeerError."""
        http = PeerConnection(
            self.address, self._local.fingerprint, self._options.response_timeout, _do_nothing, self._greeting
        )
        try:
            await http.connect(self._options.connect_timeout)
            return read_body(await http.request("GET", target))
        finally:
            http.close()

    def has_queued(self, unique_id: str) -> bool:
        """Whether a message with this uniqueID has yet to be accepted by the peer."""
        return any(each.message.unique_id == unique_id for each in (*self._in_flight, *self._outbox))

    def put(self, envelope: Envelope) -> None:
        """Queue a message."""
        self._on_dropped(self._outbox.put(envelope))
        self._wake.set()

    def finish(self) -> None:
        """Make `run` return as soon as the queue is empty, or an attempt fails."""
        self._is_closing = True
        self._wake.set()
        self._retry_now.set()

    def retry_now(self) -> None:
        """If it is down, try it without waiting any longer."""
        self._retry_now.set()

    async def run(self) -> None:
        """Send until `finish`, or until the peer turns out to be this node."""
        try:
            while not self._is_done():
                await self._step_or_recover()
        finally:
            self._http.close()
            self.log.flush()

    def _is_done(self) -> bool:
        if self._is_closing and not self._outbox:
            return True
        return self._has_given_up or self.state is PeerState.SELF

    async def _step_or_recover(self) -> None:
        try:
            await self._step()
        except PeerError as error:
            await self._recover(error)
        except Exception as error:
            log.exception(log_events.PEER_FAILED, self.address)
            await self._recover(PeerError(f"unexpected error: {error!r}"))

    async def _step(self) -> None:
        self._on_dropped(self._outbox.trim(time.monotonic()))
        if self._needs_probe():
            await self._probe()
        elif self._outbox:
            await self._send()
        else:
            await self._wait()

    def _needs_probe(self) -> bool:
        """A new connection begins with a probe, and so does the time after a long silence.

        A Node.js server closes idle connections after some seconds: it is probed again only for the next message.
        """
        last = self._responded_at if self.node.reports is None else self._probed_at
        if time.monotonic() - last > self._probe_interval:
            return True
        if self._is_probed and self._http.is_open:
            return False
        return bool(self._outbox) or self.node.accepts_lists or self.state is not PeerState.UP

    @property
    def _probe_interval(self) -> float:
        is_new = self.node.reports is not None and time.monotonic() < self._local.started + FIRST_SECONDS
        return min(self._options.probe_interval, FIRST_PROBE_INTERVAL if is_new else inf)

    async def _wait(self) -> None:
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), self._probe_interval)
        except asyncio.TimeoutError:
            return

    def _on_idle_close(self) -> None:
        self._wake.set()

    async def _probe(self) -> None:
        """Request its status, over a new connection if necessary."""
        if not self._http.is_open:
            self._is_probed = False
            self.node.on_connected()
            self._retry_now.clear()
            await self._http.connect(self._options.connect_timeout)
        identity = read_status(await self._http.request("GET", "/status/"))
        self._on_response(identity)
        self._is_probed = True
        self._probed_at = time.monotonic()
        self.node.on_reports(identity.reports)
        if identity.reports is not None and self.state is not PeerState.SELF:
            self._on_report(self, identity.reports)
        self._backlog = len(self._outbox)
        self._on_progress()

    async def _send(self) -> None:
        """Send the next batch in one POST."""
        batch_count = self._batch_count if self.node.accepts_lists else 1
        taken = self._outbox.take(batch_count, self._options.max_batch_bytes)
        self._in_flight = taken
        wanted = [envelope for envelope in taken if self.needs(envelope)]
        try:
            if not wanted or await self._post(wanted):
                self._in_flight = []
        except PeerHTTPError as error:
            if 0 < error.taken < len(wanted):
                self._on_partly_published(wanted, error.taken)
            if error.status not in PERMANENT_REJECTIONS:
                raise
            self._on_rejected(wanted, error)
        finally:
            self._outbox.put_back(self._in_flight)
            self._backlog -= len(taken) - len(self._in_flight)
            self._in_flight = []
        self._on_progress()

    async def _post(self, batch: Sequence[Envelope]) -> bool:
        """Return whether the peer accepted the batch: a Node.js server does not publish a list, and may not report
        that as an error."""
        with_origin = self.node.reports is not None
        bodies = [envelope.body(self.fingerprint, with_origin=with_origin) for envelope in batch]
        body = bodies[0] if len(bodies) == 1 else b"[" + b",".join(bodies) + b"]"
        target = "/?instance=" + quote(batch[0].message.instance, safe="")
        self.log.posts += 1
        identity = read_receipt(await self._http.request("POST", target, body))
        self._on_response(identity)
        if len(batch) > 1 and not identity.accepts_lists:
            return False
        self.log.sent += len(batch)
        self._batch_count = min(self._batch_count * 2, self._options.max_batch_count)
        return True

    def _on_partly_published(self, batch: Sequence[Envelope], count: int) -> None:
        """It published the first `count` messages, and was overloaded then: the rest is retried soon."""
        self._in_flight = self._in_flight[self._in_flight.index(batch[count]) :]
        self.log.sent += count
        self._backoff = 0.0

    def _on_rejected(self, batch: Sequence[Envelope], error: PeerHTTPError) -> None:
        """It rejects a message of the batch permanently: halve the batch until that one is alone, then drop it."""
        self._batch_count = max(1, len(batch) // 2)
        if len(batch) == 1:
            self._dropped_at = time.monotonic()
            self.log.on_message_rejected(batch[0].message, error)
            self._in_flight = []

    def _on_response(self, identity: PeerIdentity) -> None:
        self._responded_at = time.monotonic()
        node = self.node
        before, is_first = node.fingerprint, not node.has_responded
        node.on_response(identity)
        if node.is_self:
            self._become_self()
        elif node.fingerprint is not None and node.fingerprint != before:
            self.log.on_identified(node.fingerprint)
            if before is not None:
                self._on_replaced(before)
        elif is_first:
            self.log.on_nodejs_server()

    def _become_self(self) -> None:
        self.state = PeerState.SELF
        self._outbox.clear()
        self._in_flight = []
        self.log.on_self()

    def _on_progress(self) -> None:
        """It responded. It is up when it has all messages that were queued when it came back."""
        if self.state is PeerState.SELF or (self._outbox and self._backlog > 0):
            return
        self._may_be_stale = True
        if self.state is not PeerState.UP:
            self.state = PeerState.UP
            self._backoff = 0.0
            self.log.on_up()

    async def _recover(self, error: PeerError) -> None:
        """After a failure: retry, without a pause if the cause may be that an idle connection was closed."""
        self._http.close()
        self._is_probed = False
        may_be_stale, self._may_be_stale = self._may_be_stale, False
        if may_be_stale and isinstance(error, PeerDisconnected):
            return
        self.state = PeerState.DOWN
        self.log.on_failure(error)
        self._has_given_up = self._is_closing
        if not self._has_given_up:
            await self._pause()

    async def _pause(self) -> None:
        """Wait twice as long as last time, minus jitter: not all nodes should retry at the same moment."""
        options = self._options
        self._backoff = min(options.max_backoff, max(options.min_backoff, self._backoff * 2))
        try:
            seconds = self._backoff * random.uniform(0.5, 1)  # noqa: S311 -- nothing secret
            await asyncio.wait_for(self._retry_now.wait(), seconds)
        except asyncio.TimeoutError:
            return


def _do_nothing() -> None:
    """Take the place of a callback that nothing needs."""
