"""Published messages: validated when they arrive, encoded once for all receivers."""

import random
import re
import secrets
import string
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Raw
from msgspec.json import Decoder, encode

from aphlict.config.settings import Limits
from aphlict.errors import (
    InvalidJSON,
    InvalidMessage,
    NameTooLong,
    NoSubscribers,
    TooManyChannels,
    TooManyMessages,
)
from aphlict.protocol.websocket import TEXT, encode_frame

ALPHABET = string.ascii_letters + string.digits
DEFAULTS = Limits()
MAX_TOUCHED, MAX_FINGERPRINT = (
    1024,
    64,
)  # nodes, and characters of a fingerprint: this server and Node.js use 16
CHANNEL_BYTES, MESSAGE_BYTES = 250, 900  # that Python needs in addition to the text

ORIGIN_KEY = "aphlict.origin"  # of a message between nodes: its origin and number, with a space between them

TRACE_KEY = "traceparent"  # of a published object, and the HTTP header of a POST
# W3C Trace Context, 3.2: neither id has only zeros, and only versions after 00 may have more than these four parts.
_IDS_AND_FLAGS = "(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(f"00-{_IDS_AND_FLAGS}|(?!00|ff)[0-9a-f]{{2}}-{_IDS_AND_FLAGS}(?:-[!-~]{{1,200}})?")

_ORIGIN = re.compile(r"([A-Za-z0-9]{8}) ([1-9][0-9]{0,14})")
_text = Decoder(str)
_object = Decoder(dict[str, Raw])
_objects = Decoder(list[dict[str, Raw]])
_channels = Decoder(list[str | int])
_names = Decoder(list[str])
_unique_id = Decoder(str | int | None)

_JSON_ERRORS = (msgspec.DecodeError, RecursionError, ValueError)


def random_name(size: int) -> str:
    """Return `size` letters and digits that cannot be guessed."""
    return "".join(secrets.choice(ALPHABET) for _ in range(size))


def new_unique_id() -> str:
    """Return a uniqueID for a message without one. It has to be unique, not secret."""
    return f"{random.getrandbits(128):032x}"


class Delivery:
    """A message as the subscribers of the same ones of its channels receive it.

    `ws_frame`: a complete WebSocket frame. It is made once and shared by all receivers.
    """

    # No reference to the message, which may cache this object: a cycle would keep the memory of both until the
    # garbage collector runs.
    __slots__ = ("channels", "instance", "unique_id", "ws_frame")

    def __init__(self, instance: str, unique_id: str, channels: tuple[str, ...], json: bytes) -> None:
        self.instance = instance
        self.unique_id = unique_id
        self.channels = channels
        self.ws_frame = encode_frame(TEXT, json)

    @property
    def json(self) -> bytes:
        """The JSON in the frame: a copy, as keeping both would double the memory of the history."""
        return self.ws_frame[{126: 4, 127: 10}.get(self.ws_frame[1], 2) :]


class Message:
    """A published object.

    `channels`: the names in `subscribers`, each once. `touched`: the fingerprints of the nodes that have the message;
    empty once it has been forwarded. `payload`: the JSON object without `subscribers`, `touched` and its closing
    brace. `memory_size`: the bytes that the message takes while the history keeps it, approximately.
    `origin`, `number`: which node accepted it from its publisher, and its number there; empty and 0 before that.
    `delivered_at`: when it was passed to its last receiver here (monotonic seconds); 0 before that.
    """

    __slots__ = (
        "_delivery",
        "channels",
        "delivered_at",
        "instance",
        "memory_size",
        "number",
        "origin",
        "payload",
        "touched",
        "unique_id",
    )

    def __init__(
        self,
        instance: str,
        unique_id: str,
        channels: tuple[str, ...],
        touched: tuple[str, ...],
        payload: bytes,
        origin: str = "",
        number: int = 0,
    ) -> None:
        self.instance = instance
        self.unique_id = unique_id
        self.channels = channels
        self.touched = touched
        self.payload = payload
        self.origin = origin
        self.number = number
        self._delivery: Delivery | None = None
        self.delivered_at = 0.0
        self.memory_size = MESSAGE_BYTES + 2 * len(payload) + CHANNEL_BYTES * len(channels)

    @property
    def traceparent(self) -> str | None:
        """The trace that the publisher named; None if the field is malformed. Decoded when asked, which deliveries
        never do."""
        try:
            return read_traceparent(_text.decode(_object.decode(self.payload + b"}").get(TRACE_KEY, b"null")))
        except _JSON_ERRORS:
            return None

    @property
    def wire_size(self) -> int:
        """About how many bytes it takes in a POST to a peer, without `touched`."""
        return len(self.payload) + 40 * len(self.channels) + 40

    def json_for(self, channels: tuple[str, ...]) -> bytes:
        """Encode the message for subscribers of these channels, which see no other channels."""
        return b'%b,"subscribers":%b}' % (self.payload, encode(channels))

    def delivery(self, channels: tuple[str, ...]) -> Delivery:
        """Return what the subscribers of these channels receive; the delivery for all channels is cached."""
        if self._delivery is not None and self._delivery.channels == channels:
            return self._delivery
        delivery = Delivery(self.instance, self.unique_id, channels, self.json_for(channels))
        if len(channels) == len(self.channels):
            self._delivery = delivery
        return delivery

    def json_for_peer(self, touched: Iterable[str], *, with_origin: bool = False) -> bytes:
        """Encode the message for another node; `with_origin` for one that is no Node.js server."""
        return b'%b,"subscribers":%b,"touched":%b%b}' % (
            self.payload,
            encode(self.channels),
            encode(list(touched)),
            b',"%b":"%b %d"' % (ORIGIN_KEY.encode(), self.origin.encode(), self.number)
            if with_origin
            else b"",
        )


def parse_body(
    body: bytes,
    instance: str,
    new_id: Callable[[], str] = new_unique_id,
    limits: Limits = DEFAULTS,
) -> tuple[list[Message], bool]:
    """Parse a published body: return its messages, and whether it is a list.

    Raises InvalidMessage or a subclass where any of the messages is invalid.
    """
    objects, is_batch = decode_body(body, instance, limits)
    return [parse_message(fields, instance, new_id, limits) for fields in objects], is_batch


def decode_body(body: bytes, instance: str, limits: Limits) -> tuple[list[dict[str, Raw]], bool]:
    """Decode a published body: return its objects, each for `parse_message`, and whether it is a list.

    Raises InvalidJSON, NameTooLong, TooManyMessages.
    """
    check_name(instance, "the instance", limits.name)
    try:
        text = body.decode()  # msgspec does not validate the UTF-8 of Raw values
        is_batch = text.lstrip(" \t\r\n")[:1] == "["
        objects = _objects.decode(body) if is_batch else [_object.decode(body)]
    except _JSON_ERRORS as error:
        raise InvalidJSON(f"the body is not a JSON object or a list of objects: {error}") from error
    if len(objects) > limits.batch:
        raise TooManyMessages(
            f"the list has {len(objects)} messages, more than limits.batch allows ({limits.batch})"
        )
    return objects, is_batch


def parse_message(
    fields: dict[str, Raw],
    instance: str,
    new_id: Callable[[], str] = new_unique_id,
    limits: Limits = DEFAULTS,
    *,
    from_node: bool = False,
    traceparent: str | None = None,
) -> Message:
    """Make a message of an object. `from_node`: another node sent it, and may have numbered it. `traceparent`: the
    trace of a publisher's request; it becomes a field of a message without one, unless it came by another node.

    Raises NoSubscribers, NameTooLong, TooManyChannels, InvalidMessage.
    """
    channels = _read_channels(fields.pop("subscribers", None), limits)
    touched = _read_touched(fields.pop("touched", None))
    numbered = fields.pop(ORIGIN_KEY, None)
    origin, number = _read_origin(numbered) if from_node else ("", 0)
    if traceparent is not None and not touched and TRACE_KEY not in fields:
        fields[TRACE_KEY] = Raw(encode(traceparent))
    unique_id = _read_unique_id(fields.get("uniqueID"), limits.name)
    if unique_id is None:
        unique_id = new_id()
        fields["uniqueID"] = Raw(encode(unique_id))
    return Message(instance, unique_id, channels, touched, encode(fields)[:-1], origin, number)


def read_traceparent(value: str | None) -> str | None:
    """Return a valid `traceparent`, and None for any other value: an invalid one is ignored."""
    return value if value is not None and _TRACEPARENT.fullmatch(value) else None


def _read_origin(raw: Raw | None) -> tuple[str, int]:
    if raw is None:
        return "", 0
    try:
        match = _ORIGIN.fullmatch(_text.decode(raw))
    except _JSON_ERRORS as error:
        raise InvalidMessage(f"'{ORIGIN_KEY}' must be text: {error}") from error
    if match is None:
        raise InvalidMessage(f"'{ORIGIN_KEY}' must be an origin of 8 characters and a number")
    return match[1], int(match[2])


def _read_channels(raw: Raw | None, limits: Limits) -> tuple[str, ...]:
    if raw is None:
        raise NoSubscribers("the message has no 'subscribers': a list of channel names is expected")
    try:
        names = _channels.decode(raw)
    except _JSON_ERRORS as error:
        raise NoSubscribers(f"'subscribers' must be a list of channel names: {error}") from error
    if len(names) > limits.channels:
        raise TooManyChannels(
            f"the message has {len(names)} channels, more than limits.channels allows ({limits.channels})"
        )
    channels = tuple(dict.fromkeys(map(str, names)))
    for name in channels:
        check_name(name, "a channel in 'subscribers'", limits.name)
    return channels


def _read_touched(raw: Raw | None) -> tuple[str, ...]:
    if raw is None:
        return ()
    try:
        names = tuple(_names.decode(raw))
    except _JSON_ERRORS as error:
        raise InvalidMessage(f"'touched' must be a list of fingerprints: {error}") from error
    if len(names) > MAX_TOUCHED or any(len(name) > MAX_FINGERPRINT for name in names):
        raise InvalidMessage(
            f"'touched' must be a list of {MAX_TOUCHED} fingerprints at most, of {MAX_FINGERPRINT} letters at most"
        )
    return names


def _read_unique_id(raw: Raw | None, limit: int) -> str | None:
    """Return None for null and for an empty string, which would make all such messages duplicates of each other."""
    if raw is None:
        return None
    try:
        value = _unique_id.decode(raw)
    except _JSON_ERRORS as error:
        raise InvalidMessage(f"'uniqueID' must be text: {error}") from error
    name = "" if value is None else str(value)
    return check_name(name, "'uniqueID'", limit) if name else None


def check_name(name: str, what: str, limit: int) -> str:
    """Return the name if it has at most `limit` bytes. Raises NameTooLong."""
    if len(name) > limit or (not name.isascii() and len(name.encode()) > limit):
        raise NameTooLong(f"{what} is longer than {limit} bytes: {name[:40]}…")
    return name
