"""Records between hub and edges over a Unix socket, flow control, and the transfer of a history."""

import asyncio
from collections.abc import Callable, Iterator

from msgspec import Raw, Struct
from msgspec.msgpack import Decoder, Encoder

from aphlict.core.history import Entry
from aphlict.core.hub import Hub
from aphlict.core.message import Message
from aphlict.core.state import HubState, describe

LENGTH_SIZE = 4  # bytes: the length of a record precedes it, which is MessagePack


class PackedMessage(Struct, array_like=True):
    """A message, and the time at which the node accepted it (monotonic seconds are the same in all processes)."""

    instance: str
    unique_id: str
    channels: tuple[str, ...]
    payload: bytes
    at: float
    origin: str
    number: int

    def unpack(self) -> Message:
        """Return the message."""
        return Message(
            self.instance, self.unique_id, self.channels, (), self.payload, self.origin, self.number
        )


class Publish(Struct, array_like=True, tag="publish"):
    """Hub to edge: deliver the messages. The response is an Ack, unless `number` is 0."""

    number: int
    messages: list[PackedMessage]


class Ack(Struct, array_like=True, tag="ack"):
    """Edge to hub: the messages of `number` are being delivered; `matched` has the number of clients of each.

    `load` and `reach` are those of the edge's `Hub`.
    """

    number: int
    matched: list[int]
    load: float = 0.0
    reach: float = 0.0


class EdgeRequest(Struct, array_like=True, tag="request"):
    """Hub to edge: answer the question of this name."""

    number: int
    name: str
    argument: Raw


class EdgeReply(Struct, array_like=True, tag="reply"):
    """Edge to hub: the answer; for STATS with `load` and `reach` of the edge's `Hub`."""

    number: int
    result: Raw
    report: tuple[float, float] | None = None


class HistoryRecord(Struct, array_like=True, tag="history"):
    """Both ways, when an edge joins: messages from the history of the sender.

    The first record has the state, and so has one before which messages were evicted: the receiver must know what is
    missing before it delivers what comes after. The last record has it again. After the hub's last record the edge is
    up to date.
    """

    messages: list[PackedMessage]
    state: HubState | None = None
    is_last: bool = False


class OriginsRecord(Struct, array_like=True, tag="origins"):
    """Hub to edge: its version vector, after all messages that were sent before. Sent when an origin is new, when
    messages were given up, and regularly: resume tokens depend on when an origin was last heard."""

    state: HubState


class Leave(Struct, array_like=True, tag="leave"):
    """Edge to hub: this edge stops gracefully."""


Record = Publish | Ack | EdgeRequest | EdgeReply | HistoryRecord | OriginsRecord | Leave

_encoder = Encoder()
_decoder = Decoder(Record)


def encode(record: Record) -> bytes:
    """Return a record as bytes."""
    body = _encoder.encode(record)
    return len(body).to_bytes(LENGTH_SIZE, "big") + body


def pack(message: Message, at: float) -> PackedMessage:
    """Return a message in the form of a record."""
    return PackedMessage(
        message.instance,
        message.unique_id,
        message.channels,
        message.payload,
        at,
        message.origin,
        message.number,
    )


class RecordReader:
    """Parses records from a stream. They are trusted: the sender is a process of the same server."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Record]:
        """Yield the records that are complete."""
        self._buffer += data
        while len(self._buffer) >= LENGTH_SIZE:
            end = LENGTH_SIZE + int.from_bytes(self._buffer[:LENGTH_SIZE], "big")
            if len(self._buffer) < end:
                return
            record = _decoder.decode(self._buffer[LENGTH_SIZE:end])
            del self._buffer[:end]
            yield record


MAX_ROOM = 256  # messages that are published in a row: 4 ms of the hub
REPORT_LIFETIME = 1.0  # seconds for which a report is used: clients come and go


class FlowControl:
    """Limits what is sent to one edge, by the load that it last reported and the messages sent since."""

    __slots__ = ("_reach", "_reported", "_unconfirmed", "is_late", "load")

    def __init__(self) -> None:
        self.load = 0.0  # of its `Hub`, in its last report
        self.is_late = False  # it has exceeded ACK_TIMEOUT, and has sent no report since
        self._reach = 0.0  # the load that one message adds, at most
        self._reported = float("-inf")
        self._unconfirmed = 0  # messages

    def on_sent(self, messages: int) -> None:
        """`messages` were sent to it, which it will confirm."""
        self._unconfirmed += messages

    def on_report(self, load: float, reach: float, now: float, confirmed: int = 0) -> None:
        """It has reported its load, and confirmed so many messages."""
        self.load, self._reach, self._reported = load, reach, now
        self._unconfirmed -= confirmed
        self.is_late = False

    def room(self, now: float) -> int:
        """The number of messages that may be sent now: as many as cannot overload it if each goes to all its clients,
        but at least one. An edge that is late does not delay the others."""
        if self.is_late:
            return MAX_ROOM
        if now > self._reported + REPORT_LIFETIME:
            return 1
        room = (1 - self.load) / self._reach if self._reach else MAX_ROOM
        return max(1, min(MAX_ROOM, int(room) - self._unconfirmed))


STEP_SIZE = 256 * 1024  # bytes written in one turn of the loop, about
ENTRY_COST = 64  # bytes that an entry counts for, also if it is not sent


class Transfer:
    """Writes the history to a transport, in order; `is_wanted` selects the entries.

    Messages that are published meanwhile are written too, and entries that are evicted before their turn are not, so
    nothing is buffered. When everything is written, including the last HistoryRecord, `on_done` is called in the same
    turn of the loop: no message can come between them. `pause` and `resume` are for the transport's flow control.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        hub: Hub,
        is_wanted: Callable[[Entry], bool],
        on_done: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._hub = hub
        self._archive = hub.history
        self._is_wanted = is_wanted
        self._on_done = on_done
        self._sequence = 0  # of the last entry that was examined
        self._evictions = -1  # when the state was last written
        self._is_paused = False
        self._is_done = False
        self._next: asyncio.Handle | None = None

    def start(self) -> None:
        """Start, in the running loop."""
        self._schedule()

    def pause(self) -> None:
        """Stop writing for now."""
        self._is_paused = True

    def resume(self) -> None:
        """Continue writing."""
        self._is_paused = False
        self._schedule()

    def _schedule(self) -> None:
        if self._next is None and not self._is_done:
            self._next = asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        """Write the next step, unless the transport is closing or paused."""
        self._next = None
        if self._is_paused or self._transport.is_closing():
            return
        state = None
        if self._evictions != self._archive.evictions:
            state, self._evictions = describe(self._hub), self._archive.evictions
        messages = self._next_messages()
        if messages or state is not None:
            self._transport.write(encode(HistoryRecord(messages, state)))
        if self._sequence == self._archive.sequence:
            self._is_done = True
            self._transport.write(encode(HistoryRecord([], describe(self._hub), is_last=True)))
            self._on_done()
        elif not self._is_paused:  # `write` may call `pause`
            self._schedule()

    def _next_messages(self) -> list[PackedMessage]:
        """Return the messages of the next step."""
        messages: list[PackedMessage] = []
        size = 0
        for entry in self._archive.entries(self._sequence):
            self._sequence = entry.sequence
            size += ENTRY_COST
            if self._is_wanted(entry):
                messages.append(pack(entry.message, entry.at))
                size += entry.message.wire_size
            if size >= STEP_SIZE:
                return messages
        self._sequence = self._archive.sequence
        return messages
