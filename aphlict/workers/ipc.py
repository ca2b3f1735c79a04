"""What hub and edges tell each other over a local stream: records of MessagePack, each behind its length."""

import asyncio
from collections.abc import Callable, Iterator

from msgspec import Struct
from msgspec.msgpack import Decoder, Encoder

from aphlict.core.history import Entry, Evictions, HistoryStore
from aphlict.core.message import Message
from aphlict.core.stats import SubscriberStats

LENGTH = 4  # bytes


class PackedMessage(Struct, array_like=True):
    """A message, and when the node accepted it (monotonic seconds, which all processes of a machine share)."""

    instance: str
    unique_id: str
    channels: tuple[str, ...]
    payload: bytes
    at: float

    def unpack(self) -> Message:
        """Make the message again."""
        return Message(self.instance, self.unique_id, self.channels, (), self.payload)


class Publish(Struct, array_like=True, tag="publish"):
    """Hub to edge: deliver these, and confirm `number`."""

    number: int
    messages: list[PackedMessage]


class Ack(Struct, array_like=True, tag="confirm"):
    """Edge to hub: the messages of `number` are on their way; each went to so many browsers.

    `load` and `reach` are those of its `hub.Hub`.
    """

    number: int
    matched: list[int]
    load: float = 0.0
    reach: float = 0.0


class StatsRequest(Struct, array_like=True, tag="ask"):
    """Hub to edge: how are you, and this instance?"""

    number: int
    instance: str


class StatsReply(Struct, array_like=True, tag="tell"):
    """Edge to hub: the figures asked for."""

    number: int
    pid: int
    figures: SubscriberStats
    load: float = 0.0
    reach: float = 0.0


class HistoryRecord(Struct, array_like=True, tag="history"):
    """Either way, when an edge joins: what the sender has.

    The last one says what it has not. After that of the hub the edge is up to date.
    """

    messages: list[PackedMessage]
    evictions: Evictions | None = None


class Leave(Struct, array_like=True, tag="leave"):
    """Edge to hub: this edge stops in good order."""


Record = Publish | Ack | StatsRequest | StatsReply | HistoryRecord | Leave

_encoder = Encoder()
_decoder = Decoder(Record)


def encode(record: Record) -> bytes:
    """Make the bytes of a record."""
    body = _encoder.encode(record)
    return len(body).to_bytes(LENGTH, "big") + body


def pack(message: Message, at: float) -> PackedMessage:
    """Make of a message what can travel."""
    return PackedMessage(message.instance, message.unique_id, message.channels, message.payload, at)


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


MAX_ROOM = 256  # messages that are published in a row: 4 ms of the hub
FRESH = 1.0  # seconds for which a report counts: browsers come and go meanwhile


class Flow:
    """What is known of one edge's load: its last report, and what it was sent since."""

    __slots__ = ("_flight", "_reach", "_reported", "is_late", "load")

    def __init__(self) -> None:
        self.load = 0.0  # that of its `hub.Hub`, as of its last report
        self.is_late = False  # it let a publisher wait for too long, and has confirmed nothing since
        self._reach = 0.0  # the load that one message adds at most
        self._reported = float("-inf")
        self._flight = 0  # messages that it has not confirmed

    def on_sent(self, messages: int) -> None:
        """So many messages were sent to it, which it will confirm."""
        self._flight += messages

    def on_report(self, load: float, reach: float, now: float, confirmed: int = 0) -> None:
        """It says what its load is, perhaps when it confirms messages."""
        self.load, self._reach, self._reported = load, reach, now
        self._flight -= confirmed
        self.is_late = False

    def room(self, now: float) -> int:
        """How many messages may follow: so many that it is not overloaded if all of its browsers get each of them,
        but one in any case. One that is late does not hold up the others."""
        if self.is_late:
            return MAX_ROOM
        if now > self._reported + FRESH:
            return 1
        room = (1 - self.load) / self._reach if self._reach else MAX_ROOM
        return max(1, min(MAX_ROOM, int(room) - self._flight))


STEP = 256 * 1024  # about how many bytes are written in one turn of the loop
ENTRY_COST = 64  # bytes that looking at one more entry counts for


class Transfer:
    """Writes to a transport what an archive keeps, in the order in which it was kept.

    `is_wanted` chooses the entries. What is published meanwhile goes along: nothing waits elsewhere, and what is
    dropped before its turn is left out. Once all is written `on_done` is called, in the same turn, to write the
    last HistoryRecord: nothing falls between the two. `pause` and `resume` are for the transport's flow control.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        archive: HistoryStore,
        is_wanted: Callable[[Entry], bool],
        on_done: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._archive = archive
        self._is_wanted = is_wanted
        self._on_done = on_done
        self._sequence = 0  # of the last entry that was looked at
        self._is_paused = False
        self._is_over = False
        self._next: asyncio.Handle | None = None

    def start(self) -> None:
        """Begin, in the running loop."""
        self._schedule()

    def pause(self) -> None:
        """Write nothing for now."""
        self._is_paused = True

    def resume(self) -> None:
        """Go on."""
        self._is_paused = False
        self._schedule()

    def _schedule(self) -> None:
        if self._next is None and not self._is_over:
            self._next = asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        """Take one step, unless the transport has been closed or takes no more."""
        self._next = None
        if self._is_paused or self._transport.is_closing():
            return
        messages = self._take()
        if messages:
            self._transport.write(encode(HistoryRecord(messages)))
        if self._sequence == self._archive.sequence:
            self._is_over = True
            self._on_done()
        elif not self._is_paused:  # `write` may have called `pause`
            self._schedule()

    def _take(self) -> list[PackedMessage]:
        """The messages of the next step."""
        messages: list[PackedMessage] = []
        size = 0
        for entry in self._archive.entries(self._sequence):
            self._sequence = entry.sequence
            size += ENTRY_COST
            if self._is_wanted(entry):
                messages.append(pack(entry.message, entry.at))
                size += entry.message.wire_size
            if size >= STEP:
                return messages
        self._sequence = self._archive.sequence
        return messages
