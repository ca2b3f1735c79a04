"""Messages, and relays that send them."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aphlict.cluster.outbox import PeerOptions
from aphlict.cluster.relay import Relay
from aphlict.config.settings import PeerSettings
from aphlict.core.hub import Hub
from aphlict.core.message import Message, parse_body

OWN = "own0000000000000"
ORIGIN = "ownown01"  # of the node OWN
OTHER_ORIGIN = "otherone"
FAST = PeerOptions(min_backoff=0.02, max_backoff=0.1)


def message(
    text: str = "hello", instance: str = "default", touched: Sequence[str] = (), **more: object
) -> Message:
    """A message as the hub passes it to the relay."""
    fields = {"subscribers": ["demo"], "text": text, "uniqueID": text, "touched": list(touched), **more}
    messages, _ = parse_body(json.dumps(fields).encode(), instance)
    return messages[0]


def numbered(number: int, origin: str = ORIGIN, **more: Any) -> Message:
    """A message with a number, which is its text too."""
    made = message(str(number), **more)
    made.origin, made.number = origin, number
    return made


@asynccontextmanager
async def relay_to(
    *peers: PeerSettings, options: PeerOptions = FAST, hub: Hub | None = None
) -> AsyncIterator[Relay]:
    """Run a relay."""
    relay = Relay(peers, OWN, options, origin=ORIGIN)
    relay.start(hub)
    try:
        yield relay
    finally:
        await relay.close(1)
