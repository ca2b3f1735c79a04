"""WebSocket clients of another implementation, for tests without an event loop."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect


@contextmanager
def listening_to(port: int, *channels: str, host: str = "127.0.0.1") -> Iterator[ClientConnection]:
    """Connect and subscribe."""
    with connect(f"ws://{host}:{port}/", open_timeout=20) as browser:
        ask(browser, "subscribe", list(channels))
        yield browser


def ask(browser: ClientConnection, command: str, data: Any) -> dict[str, Any]:
    """Send a command, and return its `ack`. The next frame has to be that."""
    answer = order(browser, command, data)
    assert answer["type"] == "ack", answer
    return answer


def order(browser: ClientConnection, command: str, data: Any) -> dict[str, Any]:
    """Send a command, and return the next frame."""
    browser.send(json.dumps({"command": command, "data": data, "id": command}))
    answer = json.loads(browser.recv(timeout=20))
    assert isinstance(answer, dict)
    return answer


def receive(browser: ClientConnection, count: int) -> Sequence[dict[str, Any]]:
    """Receive messages."""
    return [json.loads(browser.recv(timeout=20)) for _ in range(count)]
