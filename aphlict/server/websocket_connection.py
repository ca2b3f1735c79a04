"""WebSocket connections (RFC 6455): frames, pings and the close handshake."""

import math
import socket
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Protocol

from aphlict.config.settings import BYTES_PER_COMMAND, Limits
from aphlict.core.message import Delivery
from aphlict.core.metrics import Cause
from aphlict.errors import FrameTimeout, ProtocolError
from aphlict.protocol import websocket as protocol
from aphlict.protocol.websocket import (
    BINARY,
    CLOSE,
    NO_STATUS,
    NORMAL,
    PING,
    PONG,
    TEXT,
    FrameParser,
    WSMessage,
)
from aphlict.server.connection import RESPONSE, WEBSOCKET, Connection, State
from aphlict.server.context import PortContext
from aphlict.server.tls_socket import TLSSocket
from aphlict.server.write_buffer import WOULD_BLOCK

_PING = protocol.encode_frame(PING, b"")
_WS_FRAME = attrgetter("ws_frame")


class Session(Protocol):
    """The application's side of one WebSocket."""

    def on_message(self, websocket: "WebSocket", message: WSMessage, /) -> None:
        """A text (str) or binary (bytes) message was received."""

    def on_close(self, websocket: "WebSocket", reason: str, cause: Cause, /) -> None:
        """The WebSocket was closed, or the connection lost. `reason` is a part of a sentence, for the log."""


class WebSocket(Connection):
    """An open WebSocket; `HTTPConnection.upgrade` creates it. Part of the hub's Receiver."""

    __slots__ = ("_last_ping", "_parser", "session")

    session: Session  # while the state is WEBSOCKET

    def __init__(self, sock: socket.socket, address: str, port: PortContext, number: int) -> None:
        super().__init__(sock, address, port, number)
        self._last_ping = 0.0  # when the last ping was sent
        self._parser: FrameParser | None = None  # None while no frame or message is incomplete

    def open(self, response: bytes, open_session: Callable[["WebSocket"], Session], data: bytes) -> None:
        """Send the handshake's response and open the session. `data` was received behind the request."""
        self.state, server = RESPONSE, self.port.server
        if not self._is_paused and server.limits.ping_interval < server.limits.handshake:
            # Otherwise the deadline of the pause, or of the handshake, passes early enough.
            server.timers.add(self, self._last_received + server.limits.ping_interval)
        self.send(response)
        if self.state is not RESPONSE:
            return
        self.session = open_session(self)
        self.state = WEBSOCKET
        if data and self._is_paused:
            self._get_parser().keep(data)
        elif data:
            self._on_data(data)
        self._charge_records()
        if not self._is_paused and isinstance(self._socket, TLSSocket) and self._socket.pending():
            self._receive()

    def deliver(self, delivery: Delivery, /) -> None:
        """Part of the hub's Receiver: `send`, repeated here because a call would slow a fan-out by 2 %."""
        if self._write_buffer is None:
            frame = delivery.ws_frame
            try:
                sent = self._socket.send(frame)
            except WOULD_BLOCK:
                sent = 0
            except OSError as error:
                self._on_lost(error)
                return
            if sent != len(frame):
                self._buffer_rest(frame, sent)
        else:
            self.send(delivery.ws_frame)

    def deliver_all(self, deliveries: Iterator[Delivery], /) -> None:
        """Part of the hub's Receiver."""
        self.send_all(map(_WS_FRAME, deliveries))

    # Receiving

    def _on_data(self, data: bytes) -> None:
        try:
            self._on_frames(data)
        except ProtocolError as error:
            self._fail(error)
        if self._parser is not None or self in self.port.server.buffer_budget.accounts:
            self._count_incoming()

    def _on_frames(self, data: bytes) -> None:
        """Handle frames. They are charged first; beyond the limit they are kept, and parsed after a pause."""
        if len(data) >= BYTES_PER_COMMAND:
            self.charge(len(data) // BYTES_PER_COMMAND)
            if self._is_paused:
                self._get_parser().keep(data)
                return
        if self._parser is None:
            message = protocol.decode_short_text(data, self.port.server.limits.client_frame)
            if message is not None:
                self.charge(1)
                self.session.on_message(self, message)
                return
        self._parse(self._get_parser(), data)

    def _get_parser(self) -> FrameParser:
        if self._parser is None:
            self._parser = FrameParser(self.port.server.limits.client_frame, self._last_received)
        return self._parser

    def _parse(self, parser: FrameParser, data: bytes) -> None:
        is_charged = not data
        for message in parser.feed(data, self._last_received):
            self.charge(parser.take_frame_count())
            is_charged = True
            self._on_message(message)
            if self.state is not WEBSOCKET or self._is_paused:
                return  # the parser keeps the rest
        self.charge(max(parser.take_frame_count(), 0 if is_charged else 1))
        if parser.is_idle:
            self._parser = None

    def _on_message(self, message: WSMessage) -> None:
        if message.opcode in (TEXT, BINARY):
            self.session.on_message(self, message)
            return
        assert isinstance(message.data, bytes)
        if message.opcode == PING:
            self.send(protocol.encode_frame(PONG, message.data))
        elif message.opcode == CLOSE:
            self._on_close_frame(protocol.decode_close(message.data))

    def _on_close_frame(self, close: protocol.Close) -> None:
        """Respond with a close frame (RFC 6455, 5.5.1); the server closes the TCP connection first (7.1.1)."""
        code = NORMAL if close.code == NO_STATUS else close.code
        self.close(code, log_reason=f"the client closed it with {close.code} {close.reason}".rstrip())

    def _incoming_size(self) -> int:
        return 0 if self._parser is None else self._parser.size

    def _drop_incoming(self) -> None:
        self._parser = None
        super()._drop_incoming()

    # Closing

    def _fail(self, error: ProtocolError) -> None:
        self.count(error)
        self.close(error.close_code, str(error), f"protocol error: {error}", "error")

    def close(self, code: int, reason: str = "", log_reason: str = "", cause: Cause = "client") -> None:
        """Send a close frame, and close the connection within CLOSE_TIMEOUT."""
        if self.state < WEBSOCKET:
            self.abort(log_reason or reason, cause)
        elif self.state is WEBSOCKET:
            self._finish(protocol.encode_close(code, reason))
            self._end_session(log_reason or f"closed with {code} {reason}".rstrip(), cause)

    def _on_aborted(self, state: State, log_reason: str, cause: Cause) -> None:
        if state is WEBSOCKET:
            self._end_session(log_reason, cause)

    def _end_session(self, log_reason: str, cause: Cause) -> None:
        session = self.session
        del self.session  # a cycle would keep the memory of both until the garbage collector runs
        session.on_close(self, log_reason, cause)

    # Deadlines

    def _check_progress(self, now: float) -> float | None:
        limits = self.port.server.limits
        end = math.inf if self._parser is None else self._parser.since + limits.client_frame_time
        if now >= end:
            self._fail(FrameTimeout("a message was not complete in time"))
            return None
        if self._write_buffer is not None:  # a client that accepts data need not respond to pings
            next_deadline = self._check_stall(self._write_buffer, now)
        else:
            next_deadline = self._check_silence(now, limits)
        return None if next_deadline is None else min(next_deadline, end)

    def _check_silence(self, now: float, limits: Limits) -> float | None:
        silence = now - self._last_received
        if silence < limits.ping_interval:
            return self._last_received + limits.ping_interval
        if silence >= limits.ping_timeout:
            self.port.server.limit_counters.count("ping.timeout")
            self.abort(f"nothing was received for {silence:.0f} s", "timeout")
            return None
        if self._last_ping <= self._last_received or now - self._last_ping >= limits.ping_interval:
            self._last_ping = now
            self.send(_PING)
            if self.state is not WEBSOCKET:
                return None
        # A client that responds must be pinged again in time, although `ping.timeout` may be much longer.
        return min(self._last_received + limits.ping_timeout, now + limits.ping_interval)
