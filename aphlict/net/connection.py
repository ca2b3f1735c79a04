"""One browser's connection: a small object that reads a socket and writes to it, and never waits."""

import itertools
import logging
import socket
import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum

from aphlict.config.settings import Limits
from aphlict.errors import AphlictError, ProtocolError
from aphlict.net.deadlines import Deadlines
from aphlict.net.poller import READ, WRITE, Poller
from aphlict.wire import frames, handshake
from aphlict.wire.forwarded import Proxies
from aphlict.wire.frames import FrameReader, Received, read_single
from aphlict.wire.handshake import Request

log = logging.getLogger(__name__)

CHUNK = 16 * 1024  # bytes read at a time
DRAIN_CHUNK = 64 * 1024  # bytes written at a time once something waits
DRAIN_CHUNKS = 8  # of these in a row, before other connections have their turn
CLOSE_TIMEOUT = 2.0  # seconds that the other side has to answer a close frame, or to take what was sent last

_WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_PING = frames.encode(frames.PING, b"")
_NOTHING: deque[bytes | Iterator[bytes]] = deque(maxlen=0)  # swallows what is sent to a closed connection


class State(IntEnum):
    """The steps of a connection's life, in their order."""

    TLS = 0  # the TLS handshake is under way
    HEAD = 1  # the head of the HTTP request is being read
    STREAM = 2  # an answer over plain HTTP is under way, or awaited
    OPEN = 3  # a WebSocket
    CLOSING = 4  # the last is being sent, or was: what comes in is thrown away until the other side ends
    CLOSED = 5


class Application:
    """What a connection serves: decides about requests and answers messages."""

    def on_request(self, connection: "Connection", request: Request, rest: bytes, /) -> None:
        """A request came; `rest` are the bytes that came with it, its head first. Calls `upgrade`, `detach` or
        what a subclass of Connection has, or raises HandshakeRefused."""
        raise NotImplementedError

    def on_message(self, connection: "Connection", received: Received, /) -> None:
        """A text (str) or binary (bytes) message came."""

    def on_close(self, connection: "Connection", reason: str, /) -> None:
        """The connection, a WebSocket before, is gone. `reason` is a part of a sentence."""


class Context:
    """What all connections of a port share."""

    def __init__(
        self, application: Application, limits: Limits, poller: Poller, deadlines: Deadlines
    ) -> None:
        self.application = application
        self.limits = limits
        self.poller = poller
        self.deadlines = deadlines
        self.proxies = Proxies(())
        self.numbers = itertools.count(1)


class Connection:
    """One accepted socket. Small: it exists a hundred thousand times.

    `tag` belongs to the application. Nothing here raises out of `on_events`, `send`, `send_all` or `close`.
    """

    __slots__ = (
        "_head",
        "_heard",
        "_partial",
        "_pinged",
        "_queued",
        "_reader",
        "_socket",
        "_waiting",
        "address",
        "context",
        "number",
        "peer",
        "state",
        "tag",
    )

    def __init__(self, sock: socket.socket, address: str, context: Context) -> None:
        self._socket = sock  # non-blocking; an ssl.SSLSocket where the port speaks TLS
        self._heard = context.deadlines.now
        self._pinged = 0.0  # when the last ping was sent
        self._head = b""
        self._reader: FrameReader | None = None
        self._waiting: deque[bytes | Iterator[bytes]] | None = None
        self._queued = 0  # bytes in _waiting, those of iterators not counted
        self._partial = False  # the first of _waiting has been sent in part
        self.address = address  # of the browser, as far as it is known
        self.peer = address  # of who connected: a proxy, perhaps
        self.context = context
        self.number = next(context.numbers)
        self.state = State.TLS if isinstance(sock, ssl.SSLSocket) else State.HEAD
        self.tag: object = None
        context.poller.register(sock.fileno(), self)
        context.deadlines.add(self, context.deadlines.now + context.limits.limits_handshake)

    # Sending

    def send(self, frame: bytes, /) -> None:
        """Send one frame: at once if the socket takes it, else later; past `limits.waiting` the connection ends."""
        if self._waiting is None:
            try:
                sent = self._socket.send(frame)
            except _WOULD_BLOCK:
                sent = 0
            except OSError as error:
                self._lost(error)
                return
            if sent != len(frame):
                self._wait_for(frame[sent:], partial=sent > 0)
        elif self.state <= State.OPEN:
            self._waiting.append(frame)
            self._queued += len(frame)
            if self._queued > self.context.limits.limits_waiting:
                self._give_up()

    def send_all(self, parts: Iterator[bytes], /) -> None:
        """Send frames before anything that is sent later; they are taken one by one as the network takes them."""
        if self.state > State.OPEN:
            return
        if self._waiting is not None:
            self._waiting.append(parts)
            return
        self._waiting = deque((parts,))
        self._drain()
        if self._waiting is not None:
            self._watch(READ | WRITE)

    def _wait_for(self, rest: bytes, *, partial: bool) -> None:
        self._waiting = deque((rest,))
        self._queued = len(rest)
        self._partial = partial or self._is_tls()
        self._watch(READ | WRITE)

    def _is_tls(self) -> bool:
        """Where it is TLS, a part of what was not taken may be on its way all the same."""
        return isinstance(self._socket, ssl.SSLSocket)

    def _give_up(self) -> None:
        """Cut off a browser that does not read: drop what waits, but for the rest of a frame that was begun."""
        assert self._waiting is not None
        first = self._waiting[0]
        self._waiting.clear()
        if self._partial and isinstance(first, bytes):
            self._waiting.append(first)
        self.close(frames.TRY_AGAIN_LATER, "too slow", "it read too slowly")

    def _next_chunk(self) -> bytes:
        """Take what is to be sent next off the queue; b"" where nothing waits."""
        assert self._waiting is not None
        chunk: list[bytes] = []
        size = 0
        while self._waiting and size < DRAIN_CHUNK:
            part = self._next_part(self._waiting)
            if part is not None:
                chunk.append(part)
                size += len(part)
        return chunk[0] if len(chunk) == 1 else b"".join(chunk)

    def _next_part(self, waiting: deque[bytes | Iterator[bytes]]) -> bytes | None:
        first = waiting[0]
        if isinstance(first, bytes):
            waiting.popleft()
            self._queued -= len(first)
            return first
        part = next(first, None)
        if part is None:
            waiting.popleft()
        return part

    def _drain(self) -> None:
        """Send what waits, as far as the socket takes it; afterwards `_waiting` is None if nothing is left."""
        for _ in range(DRAIN_CHUNKS):
            chunk = self._next_chunk()
            if not chunk:
                self._drained()
                return
            try:
                sent = self._socket.send(chunk)
            except _WOULD_BLOCK:
                sent = 0
            except OSError as error:
                self._lost(error)
                return
            self._partial = sent < len(chunk) and (self._partial or sent > 0 or self._is_tls())
            if sent < len(chunk):
                assert self._waiting is not None
                # TLS wants the same bytes again: so what was joined stays joined.
                self._waiting.appendleft(chunk[sent:])
                self._queued += len(chunk) - sent
                return

    def _drained(self) -> None:
        self._queued = 0
        self._watch(READ)
        if self.state is State.CLOSING:
            self._end_writing()
        else:
            self._waiting = None

    def _watch(self, events: int) -> None:
        self.context.poller.modify(self._socket.fileno(), events)

    # Receiving

    def on_events(self, events: int, /) -> None:
        """Read and write what can be."""
        if self.state is State.TLS:
            self._shake_hands()
            return
        if events & WRITE and self._waiting is not None:
            self._drain()
        if events & ~WRITE:
            self._receive()

    def on_error(self) -> None:
        """End after an error of our own."""
        self.abort("internal error")

    def _shake_hands(self) -> None:
        assert isinstance(self._socket, ssl.SSLSocket)
        try:
            self._socket.do_handshake()
        except ssl.SSLWantWriteError:
            self._watch(READ | WRITE)
        except ssl.SSLWantReadError:
            self._watch(READ)
        except OSError as error:
            self._lost(error)
        else:
            self.state = State.HEAD
            self._watch(READ)
            self._receive()

    def _receive(self) -> None:
        """Read once; a TLS connection until nothing is left inside its layer, which epoll cannot see."""
        while self.state is not State.CLOSED:
            try:
                data = self._socket.recv(CHUNK)
            except _WOULD_BLOCK:
                return
            except OSError as error:
                self._lost(error)
                return
            if not data:
                self._lost(None)
                return
            self._on_data(data)
            if not isinstance(self._socket, ssl.SSLSocket) or not self._socket.pending():
                return

    def _on_data(self, data: bytes) -> None:
        if self.state is State.CLOSING:
            return
        self._heard = self.context.deadlines.now
        try:
            if self.state is State.OPEN:
                self._on_frames(data)
            elif self.state is State.HEAD:
                self._on_head(data)
        except ProtocolError as error:
            self.close(error.close_code, str(error), f"it broke the protocol: {error}")
        except AphlictError as error:
            self.refuse(error)

    def _on_head(self, data: bytes) -> None:
        self._head = data = self._head + data
        found = handshake.read_head(data, self.context.limits.limits_head)
        if found is None:
            return
        request, size = found
        self._head = data[size:]
        self.context.application.on_request(self, request, data)
        if self.state is State.OPEN and self._head:
            first, self._head = self._head, b""
            self._on_frames(first)

    def _on_frames(self, data: bytes) -> None:
        if self._reader is None:
            received = read_single(data, self.context.limits.limits_message)
            if received is not None:
                self.context.application.on_message(self, received)
                return
            self._reader = FrameReader(self.context.limits.limits_message)
        reader = self._reader
        for received in reader.feed(data):
            self._on_received(received)
            if self.state is not State.OPEN:
                return
        if reader.idle:
            self._reader = None

    def _on_received(self, received: Received) -> None:
        if received.opcode in (frames.TEXT, frames.BINARY):
            self.context.application.on_message(self, received)
            return
        assert isinstance(received.data, bytes)
        if received.opcode == frames.PING:
            self.send(frames.encode(frames.PONG, received.data))
        elif received.opcode == frames.CLOSE:
            self._on_close_frame(frames.decode_close(received.data))

    def _on_close_frame(self, close: frames.Close) -> None:
        """Answer a close frame (RFC 6455, 5.5.1), then end: the server closes first (7.1.1)."""
        code = frames.NORMAL if close.code == frames.NO_STATUS else close.code
        self.close(code, "", f"it closed with {close.code} {close.reason}".rstrip())

    # Becoming something

    def find_browser(self, request: Request) -> None:
        """Take the address of the browser from the request, if whoever brings it is believed."""
        proxies = self.context.proxies
        if proxies:
            self.address = proxies.find_browser(self.peer, request.headers.get("x-forwarded-for"))

    def upgrade(self, request: Request) -> None:
        """Answer the handshake; the connection is a WebSocket from here on. Raises HandshakeRefused."""
        answer = handshake.accept(request)
        self.state = State.OPEN
        limits = self.context.limits
        if (
            limits.ping_interval < limits.limits_handshake
        ):  # else the handshake's own deadline comes early enough
            self.context.deadlines.add(self, self._heard + limits.ping_interval)
        self.send(answer)

    def detach(self) -> socket.socket:
        """Give the socket away: this object forgets it."""
        self.context.poller.unregister(self._socket.fileno())
        self.state = State.CLOSED
        self._waiting = _NOTHING
        return self._socket

    # Ending

    def refuse(self, error: AphlictError, extra: str = "") -> None:
        """Answer a request that cannot be served, and end."""
        log.debug("[%d] refused a request of %s: %s", self.number, self.address, error)
        self._finish(handshake.refuse(error, extra))

    def close(self, code: int, reason: str = "", why: str = "") -> None:
        """Send a close frame and end, at the latest CLOSE_TIMEOUT later. `why` is for the log."""
        if self.state < State.OPEN:
            self.abort(why)
        elif self.state is State.OPEN:
            why = why or f"closed with {code} {reason}".rstrip()
            self._finish(frames.encode_close(code, reason))
            self.context.application.on_close(self, why)

    def _finish(self, last: bytes) -> None:
        """Send the last bytes after those that wait; nothing is sent after them."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSING
        self._reader = None
        self._heard = self.context.deadlines.now
        self.context.deadlines.add(self, self._heard + CLOSE_TIMEOUT)
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(last)
        self._drain()
        if self._waiting and self.state is State.CLOSING:
            self._watch(READ | WRITE)

    def _end_writing(self) -> None:
        """Say that nothing more will come. The other side's end is awaited, or it might lose what was sent last."""
        try:
            if isinstance(self._socket, ssl.SSLSocket):
                with suppress(*_WOULD_BLOCK):
                    self._socket.unwrap()  # sends close_notify, and does not wait for the answer
            self._socket.shutdown(socket.SHUT_WR)
        except (OSError, ValueError) as error:
            self._lost(error)

    def _lost(self, error: Exception | None) -> None:
        self.abort("it went away" if error is None else f"it was lost: {error}")

    def abort(self, why: str) -> None:
        """End at once."""
        if self.state is State.CLOSED:
            return
        was_open = self.state is State.OPEN
        self.context.poller.unregister(self._socket.fileno())
        self.state = State.CLOSED
        self._waiting, self._reader, self._head = _NOTHING, None, b""
        self._socket.close()
        if was_open:
            self.context.application.on_close(self, why)

    def on_deadline(self, now: float, /) -> float | None:
        """Give up on who is too slow with the handshake, or silent (a ping first), or does not end."""
        if self.state is State.OPEN:
            return self._check_silence(now, self.context.limits)
        if self.state is State.CLOSING:
            if now < self._heard + CLOSE_TIMEOUT:
                return self._heard + CLOSE_TIMEOUT
            self.abort("it did not end in time")
        elif self.state < State.OPEN:
            self.abort("it was too slow with its handshake")
        return None

    def _check_silence(self, now: float, limits: Limits) -> float | None:
        silence = now - self._heard
        if silence < limits.ping_interval:
            return self._heard + limits.ping_interval
        if silence >= limits.ping_timeout:
            self.abort(f"it was silent for {silence:.0f} s")
            return None
        if self._pinged <= self._heard or now - self._pinged >= limits.ping_interval:
            self._pinged = now
            self.send(_PING)
        # A browser that answers is pinged again in time, however long the silent ones are waited for.
        return min(self._heard + limits.ping_timeout, now + limits.ping_interval)
