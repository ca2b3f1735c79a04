"""All the other nodes: who of them gets a message, and what is known of each."""

import asyncio
import time
from collections.abc import Sequence

from aphlict.cluster.http_client import Address
from aphlict.cluster.outbox import Bounds, Envelope
from aphlict.cluster.peer import Peer, State
from aphlict.config.files import Read, read_file
from aphlict.config.settings import PeerSettings
from aphlict.core.message import Message

CANCEL_GRACE = 1.0


class Relay:
    """Brings messages to the peers of a node, each once, in the order of `forward`."""

    def __init__(
        self,
        peers: Sequence[PeerSettings],
        fingerprint: str,
        bounds: Bounds | None = None,
        read: Read = read_file,
    ) -> None:
        self._own = fingerprint
        self._settings = tuple(peers)
        self._peers = [Peer(_address(peer, read), fingerprint, bounds or Bounds()) for peer in peers]
        self._tasks: list[asyncio.Task[None]] = []

    def reload(self, peers: Sequence[PeerSettings], read: Read = read_file) -> None:
        """Show these same peers another secret or certificate, and trust other authorities, from now on."""
        for peer, settings in zip(self._peers, peers, strict=True):
            peer.use(_address(settings, read))

    def start(self) -> None:
        """Begin to reach for the peers; inside the running loop."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(peer.run()) for peer in self._peers]

    def forward(self, message: Message) -> None:
        """Have a message brought to every peer that it does not say has it. Never waits, never raises."""
        receivers = tuple(peer for peer in self._peers if not peer.has(message.touched))
        envelope = Envelope(message, self._own, receivers, time.monotonic(), message.touched)
        for peer in receivers:
            peer.put(envelope)

    def on_peer_announced(self, fingerprint: str) -> None:
        """Another node has asked who this one is, as one does that starts. Those that are away may be it, and
        are tried at once."""
        if fingerprint not in (peer.fingerprint for peer in self._peers if peer.state is State.UP):
            for peer in self._peers:
                peer.hurry()

    async def close(self, timeout: float) -> int:
        """Send what waits, for `timeout` seconds at most and with one more try for a peer that is away;
        return how many messages stay unsent."""
        for peer in self._peers:
            peer.finish()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout)
            await _cancel(late)
        for peer in self._peers:
            peer.report.say_unsent(peer.queued)
        return sum(peer.queued for peer in self._peers)

    def status(self) -> list[dict[str, object]]:
        """What is known of each peer, ready for JSON."""
        return [_describe(peer, settings) for peer, settings in zip(self._peers, self._settings, strict=True)]


def _address(settings: PeerSettings, read: Read) -> Address:
    return Address(
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
        await asyncio.wait(tasks, timeout=CANCEL_GRACE)


def _describe(peer: Peer, settings: PeerSettings) -> dict[str, object]:
    report = peer.report
    down_for = report.down_for if peer.state is State.DOWN else None
    return {
        "host": settings.host,
        "port": settings.port,
        "protocol": settings.protocol,
        "state": peer.state.value,
        "fingerprint": peer.fingerprint,
        "queued": peer.queued,
        "sent": report.sent,
        "posts": report.posts,
        "dropped": report.dropped,
        "last_error": report.last_error,
        "down_for": None if down_for is None else round(down_for, 1),
    }
