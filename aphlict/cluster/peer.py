"""One other node of the cluster: who it is, what waits for it, and the task that brings it there."""

import asyncio
import logging
import random
import time
from collections.abc import Iterable, Sequence
from enum import Enum
from http import HTTPStatus
from urllib.parse import quote

from aphlict.cluster.http_client import Address, HttpConnection
from aphlict.cluster.outbox import Bounds, Envelope, Outbox
from aphlict.cluster.peer_log import PeerReport
from aphlict.cluster.responses import Identity, read_receipt, read_status
from aphlict.errors import PeerDisconnected, PeerError, PeerHTTPError

log = logging.getLogger(__name__)

MOST_NAMES = 8
FAULTS_OF_A_MESSAGE = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    }
)


class State(Enum):
    """What is known of a peer."""

    UNKNOWN = "unknown"  # not reached yet
    UP = "up"
    DOWN = "down"  # the last try failed, or it has not caught up since
    SELF = "self"  # this very node, listed among its own peers


class Peer:
    """Takes messages with `put`, and delivers them in order as long as `run` runs."""

    def __init__(self, address: Address, own: str, bounds: Bounds) -> None:
        self.address = address
        self.state = State.UNKNOWN
        self.report = PeerReport(str(address))
        self._own = own
        self._bounds = bounds
        self._names: dict[str, None] = {}  # its fingerprints, the present one last
        self._has_answered = False
        self._takes_lists = False
        self._outbox = Outbox(bounds)
        self._flight: list[Envelope] = []
        self._together = bounds.batch_count
        self._http = HttpConnection(address, own, bounds.answer, self._on_idle_close)
        self._is_proven = False  # who is at the other end of this connection has been asked
        self._may_be_stale = False  # the next failure may only mean that an idle connection was closed
        self._behind = 0  # how many of those that waited when it came back wait still
        self._heard = time.monotonic()
        self._delay = 0.0
        self._wake = asyncio.Event()
        self._stir = asyncio.Event()  # ends the pause between two tries
        self._is_closing = False
        self._has_given_up = False

    @property
    def fingerprint(self) -> str | None:
        """Its fingerprint, once it has told it."""
        return next(reversed(self._names), None)

    @property
    def queued(self) -> int:
        """How many messages wait for it, those on their way included."""
        return len(self._outbox) + len(self._flight)

    def has(self, touched: Iterable[str]) -> bool:
        """Whether it has a message that these nodes have, or gets it from someone else. A node that has not
        noticed yet that this peer was restarted calls it by its old name, and sends it the message all the same."""
        return self.state is State.SELF or not self._names.keys().isdisjoint(touched)

    def use(self, address: Address) -> None:
        """Show another secret or certificate, and trust other authorities, from now on.

        An open connection that was made with other files is closed.
        """
        if address.files != self.address.files:
            self._http.close()
            self._wake.set()
        self.address = self._http.address = address
        self.hurry()

    def put(self, envelope: Envelope) -> None:
        """Have a message delivered; returns at once."""
        self.report.add_dropped(self._outbox.put(envelope))
        self._wake.set()

    def finish(self) -> None:
        """Have `run` return as soon as nothing waits any more, or the peer fails once."""
        self._is_closing = True
        self._wake.set()
        self._stir.set()

    def hurry(self) -> None:
        """Have it tried now, if it is away."""
        self._stir.set()

    async def run(self) -> None:
        """Deliver until `finish`, or until the peer turns out to be this node."""
        try:
            while not self._is_done():
                await self._step_or_recover()
        finally:
            self._http.close()
            self.report.say_losses()

    def _is_done(self) -> bool:
        if self._is_closing and not self._outbox:
            return True
        return self._has_given_up or self.state is State.SELF

    async def _step_or_recover(self) -> None:
        try:
            await self._step()
        except PeerError as error:
            await self._recover(error)
        except Exception as error:
            log.exception("peer %s: sending failed in a way that nobody thought of", self.address)
            await self._recover(PeerError(f"sending to it failed: {error!r}"))

    async def _step(self) -> None:
        self.report.add_dropped(self._outbox.trim(time.monotonic()))
        if self._must_look():
            await self._look()
        elif self._outbox:
            await self._send()
        else:
            await self._wait()

    def _must_look(self) -> bool:
        """A new connection begins with a look at who answers, and a long silence ends with one. A Node.js
        server closes idle connections after seconds, which means nothing."""
        if time.monotonic() - self._heard > self._bounds.look_again:
            return True
        if self._is_proven and self._http.is_open:
            return False
        return bool(self._outbox) or self._takes_lists or self.state is not State.UP

    async def _wait(self) -> None:
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), self._bounds.look_again)
        except asyncio.TimeoutError:
            return

    def _on_idle_close(self) -> None:
        self._wake.set()

    async def _look(self) -> None:
        """Ask who it is, over a new connection if need be."""
        if not self._http.is_open:
            self._is_proven = False
            self._stir.clear()
            await self._http.connect(self._bounds.connect)
        self._learn(read_status(await self._http.request("GET", "/status/")))
        self._is_proven = True
        self._behind = len(self._outbox)
        self._on_progress()

    async def _send(self) -> None:
        """One POST with what comes next."""
        taken = self._outbox.take(self._together if self._takes_lists else 1, self._bounds.batch_size)
        self._flight = taken
        wanted = [envelope for envelope in taken if not self.has(envelope.touched)]
        try:
            if not wanted or await self._post(wanted):
                self._flight = []
        except PeerHTTPError as error:
            if 0 < error.taken < len(wanted):
                self._forget_taken(wanted, error.taken)
            if error.status not in FAULTS_OF_A_MESSAGE:
                raise
            self._single_out(wanted, error)
        finally:
            self._outbox.give_back(self._flight)
            self._behind -= len(taken) - len(self._flight)
            self._flight = []
        self._on_progress()

    async def _post(self, batch: Sequence[Envelope]) -> bool:
        """Whether the peer took it: a Node.js server takes no list, but may not say so."""
        bodies = [envelope.body(self.fingerprint) for envelope in batch]
        body = bodies[0] if len(bodies) == 1 else b"[" + b",".join(bodies) + b"]"
        target = "/?instance=" + quote(batch[0].message.instance, safe="")
        self.report.posts += 1
        identity = read_receipt(await self._http.request("POST", target, body))
        self._learn(identity)
        if len(batch) > 1 and not identity.takes_lists:
            return False
        self.report.sent += len(batch)
        self._together = min(self._together * 2, self._bounds.batch_count)
        return True

    def _forget_taken(self, batch: Sequence[Envelope], taken: int) -> None:
        """The peer took the first ones, and is to be sent the others soon: it has only more to do than it can."""
        self._flight = self._flight[self._flight.index(batch[taken]) :]
        self.report.sent += taken
        self._delay = 0.0

    def _single_out(self, batch: Sequence[Envelope], error: PeerHTTPError) -> None:
        """Something in the batch is refused for good: halve it until that is alone, then go on without it."""
        self._together = max(1, len(batch) // 2)
        if len(batch) == 1:
            self.report.add_refused(batch[0].message.unique_id, error)
            self._flight = []

    def _learn(self, identity: Identity) -> None:
        """Take note of who answered."""
        self._heard = time.monotonic()
        self._takes_lists = identity.takes_lists
        name = identity.fingerprint
        if name == self._own:
            self._become_self()
        elif name is not None and name != self.fingerprint:
            self._rename(name)
        elif not self._has_answered:
            self.report.say_nameless()
        self._has_answered = True

    def _rename(self, name: str) -> None:
        """The old names are kept for a while: other nodes may go on using them."""
        self.report.say_who(name)
        self._names.pop(name, None)
        self._names[name] = None
        if len(self._names) > MOST_NAMES:
            del self._names[next(iter(self._names))]

    def _become_self(self) -> None:
        self.state = State.SELF
        self._outbox.clear()
        self._flight = []
        self._names = {self._own: None}
        self.report.say_self()

    def _on_progress(self) -> None:
        """It answered. It is up once it has all that waited when it came back."""
        if self.state is State.SELF or (self._outbox and self._behind > 0):
            return
        self._may_be_stale = True
        if self.state is not State.UP:
            self.state = State.UP
            self._delay = 0.0
            self.report.say_back()

    async def _recover(self, error: PeerError) -> None:
        """After a failure: try again, at once if it can be that only an idle connection was closed."""
        self._http.close()
        self._is_proven = False
        may_be_stale, self._may_be_stale = self._may_be_stale, False
        if may_be_stale and isinstance(error, PeerDisconnected):
            return
        self.state = State.DOWN
        self.report.say_away(error)
        self._has_given_up = self._is_closing
        if not self._has_given_up:
            await self._pause()

    async def _pause(self) -> None:
        """Wait twice as long as last time, less some chance: not all nodes come back at the same instant."""
        bounds = self._bounds
        self._delay = min(bounds.last_retry, max(bounds.first_retry, self._delay * 2))
        try:
            seconds = self._delay * random.uniform(0.5, 1)  # noqa: S311 -- nothing secret
            await asyncio.wait_for(self._stir.wait(), seconds)
        except asyncio.TimeoutError:
            return
