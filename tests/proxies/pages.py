"""Pages: clients that reconnect and resume when their connection is lost."""

import asyncio
import json
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

CHANNEL = "news"
PAUSE = 0.02  # seconds between two attempts


class Page:
    """One page; `texts` are the messages that it received, in order."""

    def __init__(self, url: str) -> None:
        self.texts: list[int] = []
        self.is_subscribed = False
        self._url = url
        self._last: str | None = None

    async def live(self) -> None:
        """Connect, and reconnect until cancelled."""
        while True:
            with suppress(OSError, WebSocketException):
                await self._connect_once()
            await asyncio.sleep(PAUSE)

    async def _connect_once(self) -> None:
        async with connect(self._url, open_timeout=2) as browser:
            await self._listen(browser)

    async def _listen(self, browser: ClientConnection) -> None:
        await browser.send(json.dumps({"command": "subscribe", "data": [CHANNEL], "id": 1}))
        if self._last is not None:
            await browser.send(json.dumps({"command": "replay", "data": {"after": self._last}}))
        async for frame in browser:
            message: dict[str, Any] = json.loads(frame)
            if message.get("type") == "ack":
                self.is_subscribed = True
                continue
            self.texts.append(message["text"])
            self._last = message["uniqueID"]
