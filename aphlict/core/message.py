"""A published message: checked at the door, encoded once for all who get it."""

import random
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
MAX_TOUCHED, MAX_FINGERPRINT = 1024, 64  # nodes of a cluster, and the letters of a name: all use 16
CHANNEL_COST, MESSAGE_COST = 250, 900  # bytes that Python needs beside the text

_object = Decoder(dict[str, Raw])
_objects = Decoder(list[dict[str, Raw]])
_channels = Decoder(list[str | int])
_names = Decoder(list[str])
_unique_id = Decoder(str | int | None)

_JSON_ERRORS = (msgspec.DecodeError, RecursionError, ValueError)


def random_name(size: int) -> str:
    """Make `size` letters and digits that nobody can guess."""
    return "".join(secrets.choice(ALPHABET) for _ in range(size))


def new_unique_id() -> str:
    """Make the uniqueID of a message whose publisher gave none. It has to be unlike others, not a secret."""
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
    """One published object.

    `channels` are the names in `subscribers`, each once; `touched` the fingerprints of the nodes that have
    it, until it has been forwarded; `cost` about how many bytes it takes while it is kept; `fields` the JSON object
    without `subscribers`, `touched` and its closing brace.
    """

    __slots__ = ("_delivery", "channels", "cost", "fields", "instance", "touched", "unique_id")

    def __init__(
        self,
        instance: str,
        unique_id: str,
        channels: tuple[str, ...],
        touched: tuple[str, ...],
        fields: bytes,
    ) -> None:
        self.instance = instance
        self.unique_id = unique_id
        self.channels = channels
        self.touched = touched
        self.fields = fields
        self._delivery: Delivery | None = None
        self.cost = MESSAGE_COST + 2 * len(fields) + CHANNEL_COST * len(channels)

    @property
    def size(self) -> int:
        """About how many bytes it takes in a POST to a peer, without `touched`."""
        return len(self.fields) + 40 * len(self.channels) + 40

    def text(self, channels: tuple[str, ...]) -> bytes:
        """Make the JSON that a subscriber of these channels may see."""
        return b'%b,"subscribers":%b}' % (self.fields, encode(channels))

    def delivery(self, channels: tuple[str, ...]) -> Delivery:
        """Return what the subscribers of these channels receive; the delivery for all channels is cached."""
        if self._delivery is not None and self._delivery.channels == channels:
            return self._delivery
        delivery = Delivery(self.instance, self.unique_id, channels, self.text(channels))
        if len(channels) == len(self.channels):
            self._delivery = delivery
        return delivery

    def for_peer(self, touched: Iterable[str]) -> bytes:
        """Make the JSON that goes to another node."""
        return b'%b,"subscribers":%b,"touched":%b}' % (
            self.fields,
            encode(self.channels),
            encode(list(touched)),
        )


def parse(
    body: bytes,
    instance: str,
    new_id: Callable[[], str] = new_unique_id,
    limits: Limits = DEFAULTS,
) -> tuple[list[Message], bool]:
    """Read a published body: the messages in it, and whether it was a list.

    All of it is checked before any of it is used. Raises InvalidJSON, NoSubscribers, NameTooLong, TooManyChannels,
    TooManyMessages, InvalidMessage.
    """
    objects, many = decode_body(body, instance, limits)
    return [read_message(fields, instance, new_id, limits) for fields in objects], many


def decode_body(body: bytes, instance: str, limits: Limits) -> tuple[list[dict[str, Raw]], bool]:
    """Take a published body apart: the objects in it, each for `read_message`, and whether it was a list.

    Raises InvalidJSON, NameTooLong, TooManyMessages.
    """
    check_name(instance, "the instance", limits.name)
    try:
        text = body.decode()  # msgspec skips over strings that are only passed on
        many = text.lstrip(" \t\r\n")[:1] == "["
        objects = _objects.decode(body) if many else [_object.decode(body)]
    except _JSON_ERRORS as error:
        raise InvalidJSON(f"the body is not a JSON object or a list of objects: {error}") from error
    if len(objects) > limits.batch:
        raise TooManyMessages(f"the list holds {len(objects)} messages: {limits.batch} may come at once")
    return objects, many


def read_message(
    fields: dict[str, Raw],
    instance: str,
    new_id: Callable[[], str] = new_unique_id,
    limits: Limits = DEFAULTS,
) -> Message:
    """Make the message of one object. Raises NoSubscribers, NameTooLong, TooManyChannels, InvalidMessage."""
    channels = _read_channels(fields.pop("subscribers", None), limits)
    touched = _read_touched(fields.pop("touched", None))
    unique_id = _read_unique_id(fields.get("uniqueID"), limits.name)
    if unique_id is None:
        unique_id = new_id()
        fields["uniqueID"] = Raw(encode(unique_id))
    return Message(instance, unique_id, channels, touched, encode(fields)[:-1])


def _read_channels(raw: Raw | None, limits: Limits) -> tuple[str, ...]:
    if raw is None:
        raise NoSubscribers("the message has no 'subscribers': a list of channel names is expected")
    try:
        names = _channels.decode(raw)
    except _JSON_ERRORS as error:
        raise NoSubscribers(f"'subscribers' must be a list of channel names: {error}") from error
    if len(names) > limits.channels:
        raise TooManyChannels(
            f"a message is for {len(names)} channels: {limits.channels} may be; send several messages"
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
    """Return None where none is given: an empty one would be the same for every such message."""
    if raw is None:
        return None
    try:
        value = _unique_id.decode(raw)
    except _JSON_ERRORS as error:
        raise InvalidMessage(f"'uniqueID' must be text: {error}") from error
    name = "" if value is None else str(value)
    return check_name(name, "'uniqueID'", limit) if name else None


def check_name(name: str, what: str, limit: int) -> str:
    """Return the name if it takes `limit` bytes at most; raises NameTooLong."""
    if len(name) > limit or (not name.isascii() and len(name.encode()) > limit):
        raise NameTooLong(f"{what} is longer than {limit} bytes: {name[:40]}…")
    return name
