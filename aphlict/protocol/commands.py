"""The commands of a browser: one JSON object in a text frame, checked into one of a few small structures."""

from typing import Any

import msgspec
from msgspec import Struct
from msgspec.json import Decoder, encode

from aphlict.errors import AphlictError, CommandError
from aphlict.protocol import http
from aphlict.protocol.websocket import TEXT, encode_frame

DEFAULT_AGE_MS = 60_000.0
MAX_AFTER = 16  # names to resume after; of more, the last ones count

PONG_REPLY = encode_frame(TEXT, b'{"type":"pong"}')


class Subscribe(Struct, frozen=True):
    """Add channels."""

    channels: tuple[str, ...]


class Unsubscribe(Struct, frozen=True):
    """Take channels away."""

    channels: tuple[str, ...]


class Replay(Struct, frozen=True):
    """Send again: what is `age` seconds old or younger, or where `after` is given what came after those.

    `after` holds the uniqueIDs that the browser saw last: one, or up to MAX_AFTER where nodes may differ in order.
    """

    age: float
    after: tuple[str, ...] | None = None


class Ping(Struct, frozen=True):
    """Ask for a pong."""


class Auth(Struct, frozen=True):
    """Show a token, which is not for the log."""

    token: str

    def __repr__(self) -> str:
        """Leave the token out."""
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
    """Read one command and the `id` that its answer must bear; raises CommandError (with `.id` where it has one)."""
    try:
        envelope = _envelope.decode(text)
    except _JSON_ERRORS as error:
        raise CommandError(f"this is no command: {error}", _find_id(text)) from error
    try:
        return _command(envelope), envelope.id
    except _JSON_ERRORS as error:
        raise CommandError(f"the data of '{envelope.command}' is wrong: {error}", envelope.id) from error


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
    raise CommandError(f"'{envelope.command[:40]}' is no command", envelope.id)


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
    """The id of something that is no command, where it is clear."""
    try:
        found = _id_only.decode(text).get("id")
    except _JSON_ERRORS:
        return None
    return found if isinstance(found, str | int | float) else None


def ack(id: Id, **more: object) -> bytes:
    """Make the frame that says that the command `id` is done."""
    return encode_frame(TEXT, encode({"type": "ack", "id": id, **more}))


def error_reply(id: Id, error: AphlictError) -> bytes:
    """Make the frame that says why the command `id` was not done, with the same keys as an HTTP answer's body."""
    answer = {"type": "error", "id": id, "status": error.http_status, **http.error_body(error)}
    return encode_frame(TEXT, encode(answer))
