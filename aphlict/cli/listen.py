"""`listen`: subscribe like a browser, print what arrives, and come back after a lost connection."""

import asyncio
import json
import logging
import random
import ssl
from argparse import Namespace
from collections import deque
from typing import Any

from tornado.httpclient import HTTPError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketError, websocket_connect

from aphlict.cli import configured
from aphlict.cli.admin import unverified
from aphlict.cli.console import reason, remark, say_json
from aphlict.doctor.target import Target, from_url, of_server
from aphlict.errors import AdminUnreachable, InvalidToken

CONNECT_TIMEOUT = 10.0
PING_INTERVAL = 20.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds before another try
REMEMBERED = 4096  # uniqueIDs: as many as a server's history has
REFUSED = (401, 403)
ANOTHER = "give a good one with --token-file (aphlict token makes them)"
SUBSCRIBE, REPLAY = "listen-subscribe", "listen-replay"


def run(arguments: Namespace) -> int:
    """Do it until Ctrl-C."""
    target, trusting = _target(arguments)
    context = None if not target.tls else unverified() if trusting else ssl.create_default_context()
    logging.getLogger("tornado").setLevel(logging.CRITICAL)  # what it says of a failure, we say
    token = arguments.token or target.token
    asyncio.run(Listening(target.url, arguments.channels, context, token).run())
    return 0


def _target(arguments: Namespace) -> tuple[Target, bool]:
    """Where to connect, and whether any certificate is accepted there. Raises UsageError, ConfigError."""
    if arguments.url is not None:
        target, trusting = from_url(arguments.url), arguments.insecure
    else:
        _, settings = configured.load(arguments, tell=remark)
        target, trusting = of_server(next(each for each in settings.servers if each.type == "client")), True
    return target.at_instance(arguments.instance) if arguments.instance else target, trusting


class Listening:
    """One stream of messages, over as many connections as it takes."""

    def __init__(
        self, url: str, channels: list[str], context: ssl.SSLContext | None, token: str | None
    ) -> None:
        self._url = url
        self._channels = channels
        self._context = context
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._after: str | None = None  # where to resume
        self._printed: deque[str] = deque(maxlen=REMEMBERED)
        self._pause = FIRST_PAUSE

    async def run(self) -> None:
        """Connect again and again. Raises InvalidToken, or AdminUnreachable where the server refuses the channels."""
        while True:
            why = await self._connect_once()
            pause = self._pause * random.uniform(0.75, 1.25)  # noqa: S311 -- so that many do not come at once
            remark(f"{why} Trying again in {pause:.1f} s.")
            await asyncio.sleep(pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    async def _connect_once(self) -> str:
        """Serve one connection and say why it ended."""
        request = HTTPRequest(
            self._url, headers=self._headers, connect_timeout=CONNECT_TIMEOUT, ssl_options=self._context
        )
        try:
            connection = await websocket_connect(request, ping_interval=PING_INTERVAL)
        except (OSError, HTTPError, WebSocketError) as error:
            if isinstance(error, HTTPError) and error.code in REFUSED and self._headers:
                raise InvalidToken(
                    f"{self._url} refused the token ({_sentence(error)}): {ANOTHER}"
                ) from error
            return f"Cannot connect to {self._url}: {_why(error)}."
        try:
            await self._receive(connection)
        finally:
            connection.close()
        code = connection.close_code
        if code == InvalidToken.close_code:
            raise InvalidToken(f"{self._url} ended the connection: {connection.close_reason}; {ANOTHER}")
        return f"The connection to {self._url} was closed{f' ({code})' if code else ''}."

    async def _receive(self, connection: WebSocketClientConnection) -> None:
        commands: list[dict[str, Any]] = [{"command": "subscribe", "data": self._channels, "id": SUBSCRIBE}]
        if self._after is not None:
            commands.append({"command": "replay", "data": {"after": self._after}, "id": REPLAY})
        for command in commands:
            connection.write_message(json.dumps(command))
        last = commands[-1]["id"]
        while (text := await connection.read_message()) is not None:
            self._on_text(text, last)

    def _on_text(self, text: str | bytes, last: str) -> None:
        """Take one frame; `last` is the command whose answer means that all were answered."""
        message = json.loads(text)
        if "subscribers" in message:
            self._on_message(message)
        elif message.get("type") == "error":
            if message.get("id") == SUBSCRIBE:
                raise AdminUnreachable(
                    f"{self._url} refused to be listened to: {_advise(str(message.get('error')))}"
                )
            remark(f"The server refused: {message.get('error')}")
        elif message.get("type") == "ack":
            self._on_ack(message, last)

    def _on_message(self, message: dict[str, Any]) -> None:
        unique_id = message.get("uniqueID")
        if unique_id is not None:
            if unique_id in self._printed:
                return
            self._printed.append(unique_id)
            self._after = unique_id
        say_json(message)

    def _on_ack(self, ack: dict[str, Any], last: str) -> None:
        if ack.get("recovered") is False:
            remark("Some messages may be missing: the server's history does not reach back that far.")
        if ack.get("id") == last:
            remark(f"Listening to {', '.join(self._channels)} on {self._url}")
            self._pause = FIRST_PAUSE
            self._after = ack.get("last", self._after)


def _why(error: Exception) -> str:
    """Why there is no connection, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted, {error.verify_message} (--insecure takes any)"
    if isinstance(error, ssl.SSLError):
        return f"no TLS session ({error.reason}); is it ws://, without TLS?"
    if isinstance(error, HTTPError):
        return (
            f"it answered {error.code}: {_sentence(error)}; aphlict doctor --url … says where that comes from"
        )
    return reason(error)


def _sentence(error: HTTPError) -> str:
    """What an Aphlict says in its JSON, or the status in words where something else has answered."""
    try:
        answer = json.loads(error.response.body) if error.response else None
    except ValueError:
        answer = None
    said = answer.get("error") if isinstance(answer, dict) else None
    return str(said or error.message)


def _advise(sentence: str) -> str:
    return f"{sentence}; {ANOTHER}" if "token" in sentence else sentence
