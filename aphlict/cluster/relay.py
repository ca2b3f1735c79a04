"""All peers of a node: forwarding messages to them, and their status."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from math import inf

from aphlict.cluster.http_client import PeerAddress
from aphlict.cluster.nodes import LocalNode
from aphlict.cluster.outbox import Envelope, PeerOptions
from aphlict.cluster.peer import Peer, PeerState
from aphlict.cluster.trace_peers import trace_peers
from aphlict.config.files import Read, read_file
from aphlict.config.settings import PeerSettings
from aphlict.core.hub import Hub
from aphlict.core.message import Message
from aphlict.core.metrics import Samples
from aphlict.core.sequencer import Report
from aphlict.core.trace_report import NodeReport, TraceQuery
from aphlict.core.version_vector import VersionVector, new_origin_name

CANCEL_TIMEOUT = 1.0  # seconds


class Relay:
    """Forwards messages to the peers of a node: once to each, in the order of `forward`."""

    def __init__(
        self,
        peers: Sequence[PeerSettings],
        fingerprint: str,
        options: PeerOptions | None = None,
        read: Read = read_file,
        origin: str | None = None,
    ) -> None:
        self._local = LocalNode(fingerprint, origin or new_origin_name())
        self._settings = tuple(peers)
        self._peers = [
            Peer(
                _address(peer, read),
                self._local,
                options or PeerOptions(),
                self._on_report,
                self._on_replaced,
            )
            for peer in peers
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._hub: Hub | None = None

    def reload(self, peers: Sequence[PeerSettings], read: Read = read_file) -> None:
        """Use the secrets, certificates and authorities of these settings, which are for the same peers."""
        for peer, settings in zip(self._peers, peers, strict=True):
            peer.update_address(_address(settings, read))

    def start(self, hub: Hub | None = None) -> None:
        """Connect to the peers, in the running loop. `hub` learns what they report, and repairs what they lack."""
        self._hub = hub
        if hub is not None:
            hub.origins.compared_at = min((each.node.compared_at for each in self._peers), default=inf)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(peer.run()) for peer in self._peers]

    def forward(self, message: Message) -> None:
        """Queue a message for every peer that is not in its `touched`. Never waits, never raises."""
        if message.origin == self._local.origin:
            self._local.last_number = message.number
        if not self._peers:
            return
        fingerprint, now = self._local.fingerprint, time.monotonic()
        everyone = Envelope(message, fingerprint, (), now, message.touched)
        receivers = tuple(peer for peer in self._peers if peer.needs(everyone))
        envelope = Envelope(message, fingerprint, receivers, now, message.touched)
        for peer in receivers:
            peer.put(envelope)

    def _on_report(self, peer: Peer, reports: Mapping[str, Report]) -> None:
        if self._hub is not None:
            now = time.monotonic()
            self._hub.sequencer.on_report(reports, now)
            if not self._hub.origins.is_lacking:
                self._hub.origins.compared_at = min(each.node.compared_at for each in self._peers)
            lacking = self._hub.sequencer.lacking(reports, self._hub.history, peer.sent_number, now)
            peer.repair(lacking, now)

    def _on_replaced(self, fingerprint: str) -> None:
        """A node was restarted: only the others have its last messages."""
        if self._hub is not None:
            self._hub.sequencer.on_ended(fingerprint)
            self.probe_now()

    def probe_now(self) -> None:
        """Compare with all peers again: this node has learned of messages that they may lack."""
        for peer in self._peers:
            peer.probe_now()

    def has_heard_all(self, origins: VersionVector) -> bool:
        """Whether each peer has sent something since the start of this node, and no peer has heard of a node that
        this one has not: it may just have been killed."""
        fingerprints = {origin.fingerprint for origin in origins}
        for peer in self._peers:
            peer.node.on_greeted(fingerprints)
        return not origins.awaited and all(peer.node.is_complete for peer in self._peers)

    def on_peer_announced(self, fingerprint: str) -> None:
        """A node has requested the status, as a node does when it starts. It may be one of those that are down, so
        these are tried now."""
        if fingerprint not in (peer.fingerprint for peer in self._peers if peer.state is PeerState.UP):
            for peer in self._peers:
                peer.retry_now()

    async def close(self, timeout: float) -> int:
        """Send what is queued, for `timeout` seconds at most, with one more attempt at a peer that is down.

        Returns the number of messages that were not sent.
        """
        for peer in self._peers:
            peer.finish()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout)
            await _cancel(late)
        for peer in self._peers:
            peer.log.on_unsent(peer.queued)
        return sum(peer.queued for peer in self._peers)

    async def trace(self, query: TraceQuery) -> list[NodeReport]:
        """Return what the peers report about a message."""
        return await trace_peers(self._peers, query, self._local.fingerprint)

    def status(self) -> list[dict[str, object]]:
        """The status of each peer, for JSON."""
        return [_describe(peer, settings) for peer, settings in zip(self._peers, self._settings, strict=True)]

    def samples(self) -> Samples:
        """Return the metrics of each peer, except this node itself."""
        peers = {peer.address.authority: peer for peer in self._peers if peer.state is not PeerState.SELF}
        return {
            "aphlict_peer_up": {name: float(peer.state is PeerState.UP) for name, peer in peers.items()},
            "aphlict_peer_queued_messages": {name: peer.queued for name, peer in peers.items()},
            "aphlict_peer_round_trip_seconds": {
                name: peer.round_trip for name, peer in peers.items() if peer.round_trip is not None
            },
            "aphlict_peer_sent_messages_total": {name: peer.log.sent for name, peer in peers.items()},
            "aphlict_peer_dropped_messages_total": {name: peer.log.dropped for name, peer in peers.items()},
        }


def _address(settings: PeerSettings, read: Read) -> PeerAddress:
    return PeerAddress(
        settings.host,
        settings.port,
        settings.protocol == "https",
        settings.ssl_ca,
        settings.ssl_cert,
        settings.ssl_key,
        settings.secret,
        read,
    )


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)


def _describe(peer: Peer, settings: PeerSettings) -> dict[str, object]:
    down_for = peer.log.down_for if peer.state is PeerState.DOWN else None
    return {
        "host": settings.host,
        "port": settings.port,
        "protocol": settings.protocol,
        "state": peer.state.value,
        "fingerprint": peer.fingerprint,
        "queued": peer.queued,
        "sent": peer.log.sent,
        "posts": peer.log.posts,
        "dropped": peer.log.dropped,
        "last_error": peer.log.last_error,
        "last_error_code": peer.log.last_error_code,
        "down_for": None if down_for is None else round(down_for, 1),
    }
