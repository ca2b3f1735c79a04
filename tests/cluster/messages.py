"""Messages, and relays that send them."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aphlict.cluster.outbox import PeerOptions
from aphlict.cluster.relay import Relay
from aphlict.config.settings import PeerSettings
from aphlict.core.message import Message, parse_body

OWN = "own0000000000000"
FAST = PeerOptions(min_backoff=0.02, max_backoff=0.1)


def message(
    text: str = "hello", instance: str = "default", touched: Sequence[str] = (), **more: object
) -> Message:
    """A message as the hub passes it to the relay."""
    fields = {"subscribers": ["demo"], "text": text, "uniqueID": text, "touched": list(touched), **more}
    messages, _ = parse_body(json.dumps(fields).encode(), instance)
    return messages[0]


@asynccontextmanager
async def relay_to(*peers: PeerSettings, options: PeerOptions = FAST) -> AsyncIterator[Relay]:
    """Run a relay."""
    relay = Relay(peers, OWN, options)
    relay.start()
    try:
        yield relay
    finally:
        await relay.close(1)
