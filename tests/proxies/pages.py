"""Pages: clients that reconnect and resume when their connection is lost."""

import asyncio
import json
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

CHANNEL = "news"
PAUSE = 0.02  # seconds between two attempts
MAX_NAMES = 14  # messages since the last token that are named: `after` has room for 16
REFRESH = 7  # messages after which another token is requested


class Page:
    """One page. `texts` are the messages that it received, in order; `gaps` counts reports that some may be missing.

    It resumes with its last token and the names of the messages that it received since.
    """

    def __init__(self, url: str) -> None:
        self.texts: list[int] = []
        self.gaps = 0
        self.is_subscribed = False
        self._url = url
        self._token: str | None = None
        self._names: list[str] = []  # since the token
        self._is_asking = False

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
        self._is_asking = True
        await self._send(browser, "subscribe", [CHANNEL])
        if self._token is not None:
            after = [*self._names[-MAX_NAMES:], self._token]
            await self._send(browser, "replay", {"after": after})
        async for frame in browser:
            message: dict[str, Any] = json.loads(frame)
            if message.get("type") == "ack":
                self._on_ack(message)
            elif message.get("type") != "pong":
                self.texts.append(message["text"])
                self._names.append(message["uniqueID"])
                if len(self._names) >= REFRESH and not self._is_asking:
                    self._is_asking = True
                    await self._send(browser, "ping", None)

    async def _send(self, browser: ClientConnection, command: str, data: object) -> None:
        await browser.send(json.dumps({"command": command, "data": data, "id": command}))

    def _on_ack(self, ack: dict[str, Any]) -> None:
        """A token covers everything before it, once the replay has come."""
        if ack["id"] == "subscribe" and self._token is not None:
            return
        self.is_subscribed = True
        self._is_asking = False
        self.gaps += ack.get("recovered") is False
        if "last" in ack:
            self._token = ack["last"]
            self._names.clear()
