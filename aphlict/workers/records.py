"""What hub and edges tell each other over a local stream: records of MessagePack, each behind its length."""

from collections.abc import Iterator

from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder

from aphlict.figures import Subscribed
from aphlict.history import Evictions
from aphlict.message import Message

LENGTH = 4  # bytes


class Packed(Struct, array_like=True):
    """A message, and when the node accepted it (monotonic seconds, which all processes of a machine share)."""

    instance: str
    unique_id: str
    channels: tuple[str, ...]
    fields: bytes
    at: float

    def unpack(self) -> Message:
        """Make the message again."""
        return Message(self.instance, self.unique_id, self.channels, (), self.fields)


class Publish(Struct, array_like=True, tag="publish"):
    """Hub to edge: deliver these, and confirm `number`."""

    number: int
    messages: list[Packed]


class Confirm(Struct, array_like=True, tag="confirm"):
    """Edge to hub: the messages of `number` are on their way; each went to so many browsers.

    `load` and `reach` are those of its `hub.Hub`.
    """

    number: int
    matched: list[int]
    load: float = 0.0
    reach: float = 0.0


class Ask(Struct, array_like=True, tag="ask"):
    """Hub to edge: how are you, and this instance?"""

    number: int
    instance: str


class Tell(Struct, array_like=True, tag="tell"):
    """Edge to hub: the figures asked for."""

    number: int
    pid: int
    figures: Subscribed
    load: float = 0.0
    reach: float = 0.0


class History(Struct, array_like=True, tag="history"):
    """Either way, when an edge joins: what the sender has.

    The last one says what it has not. After that of the hub the edge is up to date.
    """

    messages: list[Packed]
    evictions: Evictions | None = None


class Leave(Struct, array_like=True, tag="leave"):
    """Edge to hub: this edge stops in good order."""


Record = Publish | Confirm | Ask | Tell | History | Leave

_encoder = Encoder()
_decoder = Decoder(Record)


def encode(record: Record) -> bytes:
    """Make the bytes of a record."""
    body = _encoder.encode(record)
    return len(body).to_bytes(LENGTH, "big") + body


def pack(message: Message, at: float) -> Packed:
    """Make of a message what can travel."""
    return Packed(message.instance, message.unique_id, message.channels, message.fields, at)


class RecordReader:
    """Takes records off a stream. What comes from the other end is trusted: it is a process of this server."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Record]:
        """Yield the records that are complete now."""
        self._buffer += data
        while len(self._buffer) >= LENGTH:
            end = LENGTH + int.from_bytes(self._buffer[:LENGTH], "big")
            if len(self._buffer) < end:
                return
            record = _decoder.decode(self._buffer[LENGTH:end])
            del self._buffer[:end]
            yield record
