"""Commands of clients: a JSON object in a text message, parsed into a struct; and the replies to them."""

from typing import Any

import msgspec
from msgspec import Struct
from msgspec.json import Decoder, encode

from aphlict.errors import AphlictError, CommandError
from aphlict.protocol import http
from aphlict.protocol.websocket import TEXT, encode_frame

DEFAULT_AGE_MS = 60_000.0
MAX_AFTER = 16  # uniqueIDs and resume tokens in `after`; of more, the last ones count

PONG_REPLY = encode_frame(TEXT, b'{"type":"pong"}')


class Subscribe(Struct, frozen=True):
    """Subscribe to channels."""

    channels: tuple[str, ...]


class Unsubscribe(Struct, frozen=True):
    """Unsubscribe from channels."""

    channels: tuple[str, ...]


class Replay(Struct, frozen=True):
    """Deliver the messages of the last `age` seconds or, if `after` is given, those after these messages.

    `after`: uniqueIDs and resume tokens, at most MAX_AFTER.
    """

    age: float
    after: tuple[str, ...] | None = None


class Ping(Struct, frozen=True):
    """Request a pong."""


class Auth(Struct, frozen=True):
    """Authenticate with a token. The token must not be logged."""

    token: str

    def __repr__(self) -> str:
        """Omit the token."""
        return "Auth()"


Command = Subscribe | Unsubscribe | Replay | Ping | Auth
Id = str | int | float | None


class _Envelope(Struct):
    command: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    id: Id = None


class _ReplayData(Struct):
    age: float | None = None
    after: str | int | list[str | int] | None = None


_envelope = Decoder(_Envelope)
_id_only = Decoder(dict[str, Any])
_names = Decoder(list[str | int])
_replay = Decoder(_ReplayData | None)
_token = Decoder(str)

_JSON_ERRORS = (msgspec.DecodeError, RecursionError, ValueError)


def parse_command(text: str) -> tuple[Command, Id]:
    """Parse a command; return it and the `id` for its reply. Raises CommandError, with `id` if it can be read."""
    try:
        envelope = _envelope.decode(text)
    except _JSON_ERRORS as error:
        raise CommandError(f"not a command: {error}", _find_id(text)) from error
    try:
        return _command(envelope), envelope.id
    except _JSON_ERRORS as error:
        raise CommandError(f"the data of '{envelope.command}' is invalid: {error}", envelope.id) from error


def _command(envelope: _Envelope) -> Command:
    match envelope.command:
        case "subscribe":
            return Subscribe(_read_names(envelope.data))
        case "unsubscribe":
            return Unsubscribe(_read_names(envelope.data))
        case "replay":
            return _read_replay(_replay.decode(envelope.data))
        case "ping":
            return Ping()
        case "auth":
            return Auth(_token.decode(envelope.data))
    raise CommandError(f"unknown command '{envelope.command[:40]}'", envelope.id)


def _read_names(data: msgspec.Raw) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(str, _names.decode(data))))


def _read_replay(data: _ReplayData | None) -> Replay:
    if data is None:
        return Replay(DEFAULT_AGE_MS / 1000)
    age = DEFAULT_AGE_MS if data.age is None else max(data.age, 0.0)
    if data.after is None:
        return Replay(age / 1000)
    after = data.after if isinstance(data.after, list) else [data.after]
    return Replay(age / 1000, tuple(map(str, after[-MAX_AFTER:])))


def _find_id(text: str) -> Id:
    """Return the id of an invalid command, if it has a valid one."""
    try:
        found = _id_only.decode(text).get("id")
    except _JSON_ERRORS:
        return None
    return found if isinstance(found, str | int | float) else None


def ack(id: Id, **more: object) -> bytes:
    """Encode the frame that confirms the command `id`."""
    return encode_frame(TEXT, encode({"type": "ack", "id": id, **more}))


def error_reply(id: Id, error: AphlictError) -> bytes:
    """Encode the frame that reports why the command `id` failed, with the members of an HTTP error response."""
    answer = {"type": "error", "id": id, "status": error.http_status, **http.error_body(error)}
    return encode_frame(TEXT, encode(answer))
