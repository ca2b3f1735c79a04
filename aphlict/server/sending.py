"""The half of a connection that sends: at once where the socket takes it, and else bit by bit, in order."""

import socket
import ssl
from collections.abc import Hashable, Iterator
from enum import IntEnum
from operator import attrgetter

from aphlict.config.settings import Limits
from aphlict.core.message import Delivery
from aphlict.errors import HistoryEvicted
from aphlict.protocol import websocket
from aphlict.server.context import Surroundings
from aphlict.server.poller import READ, WRITE
from aphlict.server.timer_wheel import HasDeadline
from aphlict.server.tls_socket import TLSSocket
from aphlict.server.write_buffer import BufferBudget, Part, WriteBuffer

DRAIN_CHUNKS = 16  # sent in a row once something waits, before other connections have their turn
CLOSE_TIMEOUT = (
    2.0  # seconds that the other side has to answer a close frame, or to take more of what is left
)
_WS_FRAME = attrgetter("ws_frame")
WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
REASONS = {"limits.subscriptions.total": "too many subscriptions"}  # "too slow" for the other limits


class _Nobody:
    """The holder of what waits for closed connections."""

    party = None

    def give_up(self, _limit: str, /) -> None:
        """Nothing waits."""


NOTHING = WriteBuffer(
    BufferBudget(Limits()), _Nobody()
)  # stands for what waits for a closed connection: nothing, for good


class State(IntEnum):
    """The steps of a connection's life, in their order."""

    TLS = 0  # the TLS handshake is under way
    HEAD = 1  # the head of the HTTP request is being read
    STREAM = 2  # an answer over plain HTTP is under way, or awaited
    OPEN = 3  # a WebSocket
    CLOSING = 4  # the last is being sent, or was: what comes in is thrown away until the other side ends
    CLOSED = 5


class Sender(HasDeadline):
    """A socket that frames are sent to. `send`, `send_all` and `close` neither raise nor wait."""

    __slots__ = ("_heard", "_paused", "_socket", "_waiting", "address", "context", "state")

    watched_in_pause = 0  # events, while nothing is read

    def __init__(self, sock: socket.socket, address: str, context: Surroundings) -> None:
        super().__init__()
        self._socket = sock  # non-blocking; a TLSSocket where the port speaks TLS
        self._heard = context.deadlines.now
        self._waiting: WriteBuffer | None = None
        self._paused = False  # nothing is read for now
        self.address = address  # of the browser, as far as it is known
        self.context = context
        self.state = State.TLS if isinstance(sock, TLSSocket) else State.HEAD

    def send(self, frame: bytes, /) -> None:
        """Send one frame now or, if the socket is full, later; past `limits.send_buffer` the connection is closed."""
        if self._waiting is None:
            try:
                sent = self._socket.send(frame)
            except WOULD_BLOCK:
                sent = 0
            except OSError as error:
                self._lost(error)
                return
            if sent != len(frame):
                self._wait_for(frame, sent)
        elif self.state <= State.OPEN:
            self._add(self._waiting, frame)

    def send_all(self, parts: Iterator[bytes], /) -> None:
        """Send frames before anything that is sent later; they are taken one by one as the network takes them."""
        if self.state > State.OPEN:
            return
        if self._waiting is not None:
            self._add(self._waiting, parts)
            return
        self._waiting = WriteBuffer(self.context.pool, self)
        self._waiting.add(parts)
        self._drain()
        if self.state <= State.OPEN and self._waiting is not None:
            self._watch(READ | WRITE)

    def deliver(self, delivery: Delivery, /) -> None:
        """Part of the hub's Receiver: `send`, written out here as the call itself would cost a fan-out 2 %."""
        if self._waiting is None:
            frame = delivery.ws_frame
            try:
                sent = self._socket.send(frame)
            except WOULD_BLOCK:
                sent = 0
            except OSError as error:
                self._lost(error)
                return
            if sent != len(frame):
                self._wait_for(frame, sent)
        else:
            self.send(delivery.ws_frame)

    def deliver_all(self, deliveries: Iterator[Delivery], /) -> None:
        """Part of the hub's Receiver."""
        self.send_all(map(_WS_FRAME, deliveries))

    def _add(self, waiting: WriteBuffer, part: Part) -> None:
        is_over = waiting.add(part)
        if waiting.size > self.context.limits.send_buffer:
            self.give_up("limits.send_buffer")
        elif is_over:
            self._make_room()

    def _wait_for(self, frame: bytes, sent: int) -> None:
        """A single frame may be larger than `limits.send_buffer`, or no slow client would ever receive it."""
        self._waiting = WriteBuffer(self.context.pool, self)
        is_over = self._waiting.add(frame)
        if sent:
            self._waiting.advance(sent)
        elif isinstance(self._socket, TLSSocket):
            self._waiting.peek()  # a part of what was not taken may be on its way all the same
        self._watch(READ | WRITE)
        if is_over:
            self._make_room()

    def _make_room(self) -> None:
        """Keep to what all connections together may hold: the largest are closed, which may be this one."""
        if self.state <= State.OPEN:
            limit = self.context.pool.make_room(self)
            if limit is not None:
                self.give_up(limit)

    def give_up(self, limit: str, /) -> None:
        """Close, since this connection holds more than it may: drop what waits, but for the rest of a frame that was
        begun, if there is room for that. `limit`: the key of the limit that was passed."""
        if self.state > State.OPEN:
            self.abort("it did not end, and there was no room for what waits for it")
            return
        self.context.hits.add(limit, self.address)
        self.discard()
        why = f"it passed {limit}"
        if self.context.pool.is_full:
            self.abort(why)
        else:
            self.close(websocket.TRY_AGAIN_LATER, REASONS.get(limit, "too slow"), why)

    def discard(self) -> None:
        """Drop what waits, but for the rest of a frame that was begun; to be called before `close`, where the other
        side may not have it any more."""
        if self._waiting is not None:
            self._waiting.clear(but_begun=True)

    def _drain(self) -> None:
        """Send what waits, as far as the socket takes it; afterwards `_waiting` is None if nothing is left."""
        waiting = self._waiting
        assert waiting is not None
        for _ in range(DRAIN_CHUNKS):
            try:
                chunk = waiting.peek()
            except HistoryEvicted:
                self.give_up("limits.send_buffer")
                return
            if not chunk:
                self._drained()
                return
            try:
                sent = self._socket.send(chunk)
            except WOULD_BLOCK:
                break
            except OSError as error:
                self._lost(error)
                return
            waiting.advance(sent)
            if sent < len(chunk):
                break
        self._make_room()

    def _drained(self) -> None:
        self._watch(READ)
        if self.state is State.CLOSING:
            self._heard = self.context.deadlines.now
            self._end_writing()
        else:
            self._waiting = None

    def _watch(self, events: int) -> None:
        if self._paused:
            events = events & ~READ | self.watched_in_pause
        self.context.poller.modify(self._socket.fileno(), events)

    def _finish(self, last: bytes) -> None:
        """Send the last bytes after those that wait; nothing is sent after them."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSING
        if isinstance(self._socket, TLSSocket):
            self._socket.is_closing = True
        self._drop_incoming()
        self._heard = self.context.deadlines.now
        self.context.deadlines.add(self, self._heard + CLOSE_TIMEOUT)
        self._paused = False
        if self._waiting is None:
            self._waiting = WriteBuffer(self.context.pool, self)
        self._waiting.add(last)
        self._drain()
        if self._waiting.size and self.state is State.CLOSING:
            self._waiting.stalled_since = self._heard
            self._watch(READ | WRITE)

    def _drop_incoming(self) -> None:
        """Forget what has arrived of something that is not whole."""
        self.context.pool.receive(self, 0)

    def _end_writing(self) -> None:
        """Say that nothing more will come. The other side's end is awaited, or it might lose what was sent last."""
        try:
            if isinstance(self._socket, TLSSocket):
                self._socket.unwrap()
            self._socket.shutdown(socket.SHUT_WR)
        except (OSError, ValueError) as error:
            self._lost(error)

    def _lost(self, error: Exception | None) -> None:
        self.abort("it went away" if error is None else f"it was lost: {error}")

    @property
    def holder(self) -> "Sender":
        """Part of the hub's Receiver."""
        return self

    @property
    def party(self) -> Hashable:
        """Part of the interface of the budget's Holder."""
        raise NotImplementedError

    def close(self, code: int, reason: str = "", why: str = "") -> None:
        """End in good order. `why` is for the log."""
        raise NotImplementedError

    def abort(self, why: str) -> None:
        """End at once."""
        raise NotImplementedError

    def on_events(self, events: int, /) -> None:
        """Part of the interface of the poller's Handler."""
        raise NotImplementedError
