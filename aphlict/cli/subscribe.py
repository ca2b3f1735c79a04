"""`subscribe`: subscribe like a browser, print messages, and reconnect when the connection is lost."""

import json
import random
import ssl
import time
from argparse import ArgumentParser, Namespace
from collections import deque
from typing import Any, NoReturn

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from aphlict.cli.console import note, out_json
from aphlict.cli.options import add_channels, add_token, load_settings
from aphlict.doctor.target import Target, local_target, parse_url
from aphlict.doctor.upgrade import TOKEN_CODES
from aphlict.errors import AdminUnreachable, CommandError, InvalidToken
from aphlict.tls.ssl_context import unverified_context

EXAMPLES = {
    "subscribe": (
        "aphlict subscribe demo",
        "aphlict subscribe --url wss://example.com/ws/ PHID-USER-1234 | jq .type",
        "aphlict token --channel demo | aphlict subscribe --token-file - demo",
    )
}
CONNECT_TIMEOUT_SECONDS = 10.0
CLOSE_TIMEOUT_SECONDS = 1.0
MIN_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.5, 15.0  # between attempts to connect
MAX_MESSAGE_SIZE = 64 * 1024 * 1024  # bytes
MAX_REMEMBERED = 4096  # uniqueIDs: as many as the history of a server has by default
REJECTED = (401, 403)
PRESENT_ANOTHER = "present a valid one with --token-file (`aphlict token` creates them)"
SUBSCRIBE, REPLAY, POSITION = "subscribe", "replay", "position"  # IDs of commands
MAX_NAMED = 15  # messages that are named beside the resume token: a server accepts 16
MAX_SINCE = 8  # messages after which a newer resume token is requested


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_channels(parser, "+")
    parser.add_argument(
        "--url", help="client server, ws:// or wss:// (default: the first one in the configuration)"
    )
    parser.add_argument("--insecure", action="store_true", help="do not verify the certificate of --url")
    add_token(parser, "token to present")


def run(arguments: Namespace) -> int:
    """Print messages until Ctrl-C. Raises InvalidToken, or AdminUnreachable if the channels are rejected."""
    target, is_verified = _target(arguments)
    context = None
    if target.tls:
        context = ssl.create_default_context() if is_verified else unverified_context()
    Subscription(target.url, arguments.channels, context, arguments.token or target.token).run()
    return 0


def _target(arguments: Namespace) -> tuple[Target, bool]:
    """Return where to connect, and whether to verify its certificate. Raises UsageError, ConfigError."""
    if arguments.url is not None:
        target, is_verified = parse_url(arguments.url), not arguments.insecure
    else:
        _, settings = load_settings(arguments, show=note)
        client = next(each for each in settings.servers if each.type == "client")
        target, is_verified = local_target(client), False
    return target.with_instance(arguments.instance) if arguments.instance else target, is_verified


class Subscription:
    """A stream of messages that continues over several connections."""

    def __init__(
        self, url: str, channels: list[str], context: ssl.SSLContext | None, token: str | None
    ) -> None:
        self._url = url
        self._channels = channels
        self._context = context
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._last: str | None = None  # the resume token
        self._since: deque[str] = deque(maxlen=MAX_NAMED)  # the uniqueIDs of the messages after it
        self._printed: deque[str] = deque(maxlen=MAX_REMEMBERED)  # uniqueIDs
        self._is_asking = False  # for a newer resume token
        self._delay = MIN_DELAY_SECONDS

    def run(self) -> None:
        """Connect, and reconnect. Raises InvalidToken, or AdminUnreachable if the channels are rejected."""
        while True:
            reason = self._serve_connection()
            delay = self._delay * random.uniform(0.75, 1.25)  # noqa: S311 -- spreads reconnects
            note(f"{reason}; reconnecting in {delay:.1f} s")
            time.sleep(delay)
            self._delay = min(self._delay * 2, MAX_DELAY_SECONDS)

    def _serve_connection(self) -> str:
        """Connect, print messages, and return why the connection ended."""
        try:
            connection = connect(
                self._url,
                ssl=self._context,
                additional_headers=self._headers,
                compression=None,
                proxy=None,
                open_timeout=CONNECT_TIMEOUT_SECONDS,
                close_timeout=CLOSE_TIMEOUT_SECONDS,
                max_size=MAX_MESSAGE_SIZE,
            )
        except (OSError, InvalidHandshake) as error:
            if isinstance(error, InvalidStatus) and error.response.status_code in REJECTED and self._headers:
                sentence, code = _rejection(error)
                message = f"{self._url} rejected the token ({sentence}): {PRESENT_ANOTHER}"
                raise InvalidToken(message, code=code) from error
            return f"cannot connect to {self._url}: {_reason(error)}"
        with connection:
            try:
                self._receive(connection)
            except ConnectionClosed as closed:
                return self._on_closed(closed)

    def _on_closed(self, closed: ConnectionClosed) -> str:
        """Return what to print. Raises InvalidToken."""
        if closed.rcvd is None:
            return f"connection to {self._url} lost"
        if closed.rcvd.code == InvalidToken.close_code:
            raise InvalidToken(
                f"{self._url} closed the connection: {closed.rcvd.reason}; {PRESENT_ANOTHER}"
            ) from closed
        return f"connection to {self._url} closed ({closed.rcvd.code})"

    def _receive(self, connection: ClientConnection) -> NoReturn:
        self._is_asking = False
        commands: list[dict[str, Any]] = [{"command": "subscribe", "data": self._channels, "id": SUBSCRIBE}]
        after = [*self._since, *([] if self._last is None else [self._last])]
        if after:
            commands.append({"command": "replay", "data": {"after": after}, "id": REPLAY})
        for command in commands:
            connection.send(json.dumps(command))
        last_id = commands[-1]["id"]
        while True:
            self._on_frame(json.loads(connection.recv()), last_id)
            if len(self._since) >= MAX_SINCE and not self._is_asking:
                self._is_asking = True
                connection.send(json.dumps({"command": "ping", "id": POSITION}))

    def _on_frame(self, frame: dict[str, Any], last_id: str) -> None:
        """Handle one frame. `last_id` is the command after whose response the subscription is complete."""
        if "subscribers" in frame:
            self._on_message(frame)
        elif frame.get("type") == "error":
            self._on_error(frame)
        elif frame.get("type") == "ack":
            self._on_ack(frame, last_id)

    def _on_message(self, message: dict[str, Any]) -> None:
        unique_id = message.get("uniqueID")
        if unique_id is not None:
            if unique_id in self._printed:
                return
            self._printed.append(unique_id)
            self._since.append(unique_id)
        out_json(message)

    def _on_error(self, frame: dict[str, Any]) -> None:
        sentence, code = str(frame.get("error")), str(frame.get("code", CommandError.code))
        if frame.get("id") != SUBSCRIBE:
            note(f"the server rejected a command: {sentence}")
            return
        if code in TOKEN_CODES:
            sentence += f"; {PRESENT_ANOTHER}"
        raise AdminUnreachable(f"{self._url} rejected the subscription: {sentence}", code=code)

    def _on_ack(self, ack: dict[str, Any], last_id: str) -> None:
        if ack.get("recovered") is False:
            note("messages may be missing: the server's history does not reach back that far")
        if ack.get("id") == last_id:
            note(f"Subscribed to {', '.join(self._channels)} on {self._url}")
            self._delay = MIN_DELAY_SECONDS
        if "last" in ack and ack.get("id") in (last_id, POSITION):
            self._last = ack["last"]
            self._since.clear()
        if ack.get("id") == POSITION:
            self._is_asking = False


def _reason(error: Exception) -> str:
    """Return why the connection failed, and what to do about it if that is known."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted, {error.verify_message} (--insecure disables verification)"
    if isinstance(error, ssl.SSLError):
        return f"TLS handshake failed ({error.reason}); the port may require ws://"
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        return f"response {status}: {_rejection(error)[0]} (`aphlict doctor --url …` diagnoses this)"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is the server running? (aphlict status)"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _rejection(error: InvalidStatus) -> tuple[str, str | None]:
    """Return sentence and code of Aphlict's response, or the reason phrase of another program's."""
    try:
        fields = json.loads(error.response.body or b"")
        return str(fields["error"]), fields.get("code")
    except (ValueError, TypeError, KeyError):
        return error.response.reason_phrase, None
