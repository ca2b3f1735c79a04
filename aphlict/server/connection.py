"""One accepted socket: sending, receiving, charging and closing, without ever blocking."""

import math
import socket
from abc import abstractmethod
from collections.abc import Hashable, Iterator
from enum import IntEnum

from aphlict.core.metrics import Cause
from aphlict.errors import AphlictError, HistoryEvicted
from aphlict.protocol.websocket import TRY_AGAIN_LATER
from aphlict.server.context import PortContext
from aphlict.server.limits import limit_key
from aphlict.server.poller import GONE, HUNG_UP, READ, WRITE
from aphlict.server.timer_wheel import HasDeadline
from aphlict.server.tls_socket import MAX_EMPTY_RECORDS, TLSSocket
from aphlict.server.write_buffer import CLOSED_BUFFER, WOULD_BLOCK, Part, WriteBuffer

MAX_READ = 16 * 1024  # bytes read at a time
CLOSE_TIMEOUT = 2.0  # seconds for the peer to respond to a close frame, or to accept more of the last bytes

_CLOSE_REASONS = {"limits.subscriptions.total": "too many subscriptions"}  # "too slow" for all other limits


class State(IntEnum):
    """Steps in the life of a connection, in their order; REQUEST and RESPONSE alternate."""

    TLS = 0  # TLS handshake
    REQUEST = 1  # waiting for an HTTP request, or receiving one
    RESPONSE = 2  # an HTTP response is awaited from the handler, or streamed
    WEBSOCKET = 3
    CLOSING = 4  # the last bytes are being sent; received data is discarded until the peer closes
    CLOSED = 5


# With Python 3.11, `State.TLS` takes 95 ns, and a name of the module 6.
TLS, REQUEST, RESPONSE = State.TLS, State.REQUEST, State.RESPONSE
WEBSOCKET, CLOSING, CLOSED = State.WEBSOCKET, State.CLOSING, State.CLOSED


class Connection(HasDeadline):
    """One socket, with its write buffer and its debt of commands. Small: there are a hundred thousand of them.

    `address` is that of the client as far as it is known, `peer` that of the socket: a proxy's, perhaps. `number`
    identifies the connection in the log. `log_reason` is a part of a sentence.
    `on_events`, `send`, `send_all`, `close` and `abort` neither raise nor block.
    """

    __slots__ = (
        "_command_debt",
        "_is_paused",
        "_last_received",
        "_socket",
        "_write_buffer",
        "address",
        "number",
        "peer",
        "port",
        "state",
    )

    def __init__(self, sock: socket.socket, address: str, port: PortContext, number: int) -> None:
        super().__init__()
        self._socket = sock  # non-blocking; a TLSSocket if the port uses TLS
        self._last_received = port.server.timers.now
        self._write_buffer: WriteBuffer | None = None  # None while nothing is buffered
        self._command_debt = 0  # units of work done, reduced by `limits.commands` every second
        self._is_paused = False  # nothing is read
        self.address = self.peer = address
        self.number = number
        self.port = port
        self.state = TLS if isinstance(sock, TLSSocket) else REQUEST

    def _hand_over(self, successor: "Connection") -> None:
        """Let another object take over the socket, with nothing incoming; this one is closed afterwards."""
        server, buffer = self.port.server, self._write_buffer
        if self in server.buffer_budget.accounts:
            server.buffer_budget.receive(self, 0)
        server.timers.replace(self, successor)
        server.poller.replace(self._socket.fileno(), successor)
        if buffer is not None:
            buffer.set_holder(successor)
        successor._write_buffer, self._write_buffer = buffer, CLOSED_BUFFER  # noqa: SLF001
        successor._command_debt = self._command_debt  # noqa: SLF001
        successor._is_paused, self._is_paused = self._is_paused, False  # noqa: SLF001
        successor._last_received = self._last_received  # noqa: SLF001
        successor.peer, self.state = self.peer, CLOSED

    # Addresses and certificates

    @property
    def counted_address(self) -> str | None:
        """The address for which the connection is counted; None for a proxy whose client is not known yet."""
        proxies = self.port.proxies
        return None if proxies and self.address == self.peer and proxies.trusts(self.peer) else self.address

    @property
    def limit_key(self) -> Hashable:
        """Part of the budget's Holder: the client's network; the connection itself if the client is unknown."""
        address = self.counted_address
        return self if address is None else limit_key(address)

    @property
    def holder(self) -> "Connection":
        """Part of the hub's Receiver."""
        return self

    @property
    def certificate(self) -> bytes | None:
        """The client certificate (DER); None if the client has sent none, or none yet."""
        if self.state is TLS or not isinstance(self._socket, TLSSocket):
            return None
        return self._socket.certificate

    @property
    def has_accepted_certificate(self) -> bool:
        """Whether the port accepts the client certificate now; True if it requires none."""
        authorities, certificate = self.port.authorities, self.certificate
        return authorities is None or (certificate is not None and authorities.accept(certificate))

    def count(self, error: AphlictError) -> None:
        """Count the limit that the error reports, if it is one, and that a publisher's request is rejected."""
        if self.port.is_trusted:
            self.port.server.counters.rejected += 1
        if error.limit is not None:
            self.port.server.limit_counters.add(error.limit, self.address, error.limit_detail)

    # Sending

    def send(self, data: bytes, /) -> None:
        """Send now or, if the socket is full, later. Beyond `limits.send_buffer` the connection is closed."""
        if self._write_buffer is None:
            try:
                sent = self._socket.send(data)
            except WOULD_BLOCK:
                sent = 0
            except OSError as error:
                self._on_lost(error)
                return
            if sent != len(data):
                self._buffer_rest(data, sent)
        elif self.state <= WEBSOCKET:
            self._enqueue(self._write_buffer, data)

    def send_all(self, parts: Iterator[bytes], /) -> None:
        """Send parts before anything that is sent later, pulling each one only when the socket has room."""
        if self.state > WEBSOCKET:
            return
        if self._write_buffer is not None:
            self._enqueue(self._write_buffer, parts)
            return
        self._write_buffer = WriteBuffer(self.port.server.buffer_budget, self)
        self._write_buffer.add(parts)
        self._drain(self._write_buffer)
        if self.state <= WEBSOCKET and self._write_buffer is not None:
            self._update_events()

    def _enqueue(self, buffer: WriteBuffer, part: Part) -> None:
        exceeds_budget = buffer.add(part)
        if buffer.size > self.port.server.limits.send_buffer:
            self.close_over_limit("limits.send_buffer")
        elif exceeds_budget:
            self._make_room()

    def _buffer_rest(self, data: bytes, sent: int) -> None:
        """Buffer the rest of the first bytes that the socket did not accept.

        They may exceed `limits.send_buffer`: otherwise no slow client would ever receive a large message.
        """
        self._write_buffer = buffer = WriteBuffer(self.port.server.buffer_budget, self)
        exceeds_budget = buffer.add(data)
        if sent:
            buffer.advance(sent)
        elif isinstance(self._socket, TLSSocket):
            buffer.peek()  # TLS may have sent a part of data that it reports as not accepted
        self._update_events()
        if exceeds_budget:
            self._make_room()

    def _make_room(self) -> None:
        """Enforce the budget of all connections: those that hold the most are closed, which may be this one."""
        if self.state <= WEBSOCKET:
            limit = self.port.server.buffer_budget.make_room(self)
            if limit is not None:
                self.close_over_limit(limit)

    def close_over_limit(self, limit: str, /) -> None:
        """Close the connection, as it holds more than the limit with this configuration key allows.

        Buffered data is dropped; the rest of a frame that was begun is still sent, if the budget allows it.
        """
        if self.state > WEBSOCKET:
            self.abort("it did not close in time, and the memory of its send buffer was needed")
            return
        server, log_reason = self.port.server, f"{limit} was reached"
        server.limit_counters.add(limit, self.address)
        self.discard()
        cause: Cause = "limit" if limit in _CLOSE_REASONS else "slow"
        if server.buffer_budget.is_full:
            self.abort(log_reason, cause)
        else:
            self.close(TRY_AGAIN_LATER, _CLOSE_REASONS.get(limit, "too slow"), log_reason, cause)

    def discard(self) -> None:
        """Drop buffered data, except for the rest of a frame that was begun. Call it before `close` if the client
        must not receive the data."""
        if self._write_buffer is not None:
            self._write_buffer.clear(but_begun=True)

    def _drain(self, buffer: WriteBuffer) -> None:
        """Send buffered data, as far as the socket accepts it."""
        try:
            is_empty = buffer.send_to(self._socket)
        except HistoryEvicted:
            self.close_over_limit("limits.send_buffer")
        except OSError as error:
            self._on_lost(error)
        else:
            if not is_empty:
                self._make_room()
            elif self.state is CLOSING:
                self._update_events()
                self._last_received = self.port.server.timers.now
                self._shut_down()
            else:
                self._write_buffer = None
                self._update_events()

    def _update_events(self) -> None:
        """Have the poller report the events that this connection can handle now."""
        events = self._events_in_pause() if self._is_paused else READ
        if self._write_buffer is not None and self._write_buffer.size:
            events |= WRITE
        self.port.server.poller.modify(self._socket.fileno(), events)

    def _events_in_pause(self) -> int:
        """A client that goes away must be noticed even if nothing is read."""
        return HUNG_UP

    @property
    def write_buffer(self) -> WriteBuffer:
        """What is buffered for the client."""
        return self._write_buffer or CLOSED_BUFFER

    # Receiving

    def on_events(self, events: int, /) -> None:
        """Part of the poller's EventHandler."""
        if events & WRITE and (buffer := self._write_buffer) is not None:
            self._drain(buffer)
            if self._write_buffer is None:
                self.port.server.on_drained(self.number, buffer)
        if self._is_paused:
            if events & (GONE | HUNG_UP):
                self._on_lost(None)
        elif events & ~WRITE:
            self._receive()

    def on_error(self) -> None:
        """Part of the poller's EventHandler."""
        self.abort("internal error")

    def _receive(self) -> None:
        """Read once; from a TLS socket until it holds no decrypted data, which epoll cannot see."""
        while self.state is not CLOSED:
            try:
                data = self._socket.recv(MAX_READ)
            except WOULD_BLOCK:
                self._charge_records()
                return
            except OSError as error:
                self._on_lost(error)
                return
            if not data:
                self._on_lost(None)
                return
            self._on_received(data)
            self._charge_records()
            if self._is_paused or not isinstance(self._socket, TLSSocket) or not self._socket.pending():
                return

    def _on_received(self, data: bytes) -> None:
        """Handle data; empty: handle the data kept from before a pause."""
        if self.state is CLOSING:
            return
        now = self.port.server.timers.now
        if self._command_debt:
            self._reduce_debt(now)
        self._last_received = now
        self._on_data(data)

    @abstractmethod
    def _on_data(self, data: bytes) -> None:
        """Handle data as `_on_received`, and call `_count_incoming` if a part of it is kept."""

    @abstractmethod
    def _incoming_size(self) -> int:
        """Return the bytes that are kept of an incomplete request or message."""

    def _count_incoming(self) -> None:
        """Count incomplete requests and messages against the budget of the send buffers."""
        size = self._incoming_size() if self.state <= WEBSOCKET else 0
        if self.port.server.buffer_budget.receive(self, size):
            self._make_room()

    def _drop_incoming(self) -> None:
        """Drop the received part of an incomplete request or message."""
        self.port.server.buffer_budget.receive(self, 0)

    # Charging

    def charge(self, cost: int) -> None:
        """Charge units of work that is about to be done: beyond `limits.commands.burst` reading pauses."""
        self._command_debt += cost
        server = self.port.server
        excess = self._command_debt - server.limits.commands_burst
        if excess <= 0 or self._is_paused or self.state > WEBSOCKET:
            return
        self._is_paused = True
        self._update_events()
        server.limit_counters.add("limits.commands", self.address)
        server.timers.add(self, self._pause_end())

    def _charge_records(self) -> None:
        """Charge TLS records that hold little or no data; abort the connection after many without any."""
        if not isinstance(self._socket, TLSSocket) or self.state is CLOSED:
            return
        if self._socket.empty_records > MAX_EMPTY_RECORDS:
            self.port.server.limit_counters.add("ssl.records", self.address)
            self.abort("it sent TLS records without data")
        elif cost := self._socket.take_cost():
            self.charge(cost)

    def _pause_end(self) -> float:
        limits = self.port.server.limits
        return self._last_received + (self._command_debt - limits.commands_burst) / limits.commands

    def _reduce_debt(self, now: float) -> None:
        earned = math.ceil((now - self._last_received) * self.port.server.limits.commands)
        self._command_debt = max(0, self._command_debt - earned)

    def _resume(self) -> None:
        """Read again after a pause, beginning with the data kept from before it."""
        self._is_paused = False
        self._update_events()
        if self._incoming_size():
            self._on_received(b"")
        if not self._is_paused and self.state <= WEBSOCKET:
            self._receive()

    # Closing

    @abstractmethod
    def close(self, code: int, reason: str = "", log_reason: str = "", cause: Cause = "client") -> None:
        """Send the last bytes, `code` and `reason` on a WebSocket, and close within CLOSE_TIMEOUT after that."""

    def abort(self, log_reason: str, cause: Cause = "error") -> None:
        """Close immediately, and drop buffered data."""
        if self.state is CLOSED:
            return
        server = self.port.server
        server.poller.unregister(self._socket.fileno())
        server.timers.cancel(self)
        state, self.state = self.state, CLOSED
        self._is_paused = False
        if self._write_buffer is not None:
            self._write_buffer.clear()
        self._drop_incoming()
        self._socket.close()
        address = self.counted_address
        if self._command_debt and address is not None:
            now = server.timers.now
            self._reduce_debt(now)
            server.debts.add(address, self._command_debt, now, server.limits)
        self.port.limiter.release(address)
        self._on_aborted(state, log_reason, cause)
        self._write_buffer = CLOSED_BUFFER

    @abstractmethod
    def _on_aborted(self, state: State, log_reason: str, cause: Cause) -> None:
        """The connection has been closed by `abort`. `state` is the one before."""

    def _finish(self, last: bytes) -> None:
        """Send the last bytes, behind those that wait; nothing is sent after them."""
        if self.state is CLOSED:
            return
        server = self.port.server
        self.state = CLOSING
        if isinstance(self._socket, TLSSocket):
            self._socket.is_closing = True
        self._drop_incoming()
        self._last_received = server.timers.now
        server.timers.add(self, self._last_received + CLOSE_TIMEOUT)
        self._is_paused = False
        if self._write_buffer is None:
            self._write_buffer = WriteBuffer(server.buffer_budget, self)
        self._write_buffer.add(last)
        self._drain(self._write_buffer)
        if self._write_buffer.size and self.state is CLOSING:
            self._write_buffer.stalled_since = self._last_received
            self._update_events()

    def _shut_down(self) -> None:
        """Close the sending side. The peer's side must close first: otherwise the peer could lose the last bytes."""
        try:
            if isinstance(self._socket, TLSSocket):
                self._socket.unwrap()
            self._socket.shutdown(socket.SHUT_WR)
        except (OSError, ValueError) as error:
            self._on_lost(error)

    def _on_lost(self, error: Exception | None) -> None:
        cause: Cause = "timeout" if isinstance(error, TimeoutError) else "client"
        self.abort(
            "the client closed the connection" if error is None else f"connection lost: {error}", cause
        )

    # Deadlines

    def on_deadline(self, now: float, /) -> float | None:
        """Part of HasDeadline: end a pause, and close connections of clients that are too slow."""
        if self._is_paused and self.state <= WEBSOCKET:
            end = self._pause_end()
            if now < end:
                return end
            self._resume()
            if self._is_paused:
                return None  # paused again, which has set a deadline
        return self._check_progress(now) if self.state <= WEBSOCKET else self._check_closing(now)

    @abstractmethod
    def _check_progress(self, now: float) -> float | None:
        """Close the connection of a client that is too slow. Returns the next deadline."""

    def _check_closing(self, now: float) -> float | None:
        end = self._last_received + CLOSE_TIMEOUT
        if self.state is CLOSED or now < end:
            return None if self.state is CLOSED else end
        buffer = self._write_buffer  # of a large response to a slow client, perhaps
        next_deadline = buffer.check_stall(now, CLOSE_TIMEOUT) if buffer is not None and buffer.size else None
        if next_deadline is None:
            self.abort("it did not close in time")
        return next_deadline

    def _check_stall(self, buffer: WriteBuffer, now: float) -> float | None:
        """Close the connection of a client that has accepted no buffered data for `ping.interval` seconds."""
        next_deadline = buffer.check_stall(now, self.port.server.limits.ping_interval)
        if next_deadline is None:
            self.close_over_limit("limits.send_buffer")
        return next_deadline
