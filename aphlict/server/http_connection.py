"""HTTP connections: requests with bodies, one after the other, and their responses, now or later."""

import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import lru_cache
from sys import intern
from typing import Protocol

from aphlict import log_events
from aphlict.config.settings import BYTES_PER_COMMAND, Limits
from aphlict.core.metrics import Cause
from aphlict.errors import AphlictError, BodyTooLarge, BufferFull
from aphlict.protocol import http
from aphlict.protocol.body import ChunkedParser, SizedParser
from aphlict.protocol.http import Request
from aphlict.server.connection import CLOSED, CLOSING, REQUEST, RESPONSE, TLS, Connection, State
from aphlict.server.context import PortContext
from aphlict.server.poller import READ, WRITE
from aphlict.server.tls_socket import TLSSocket
from aphlict.server.websocket_connection import Session, WebSocket

log = logging.getLogger(__name__)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MAX_CACHED_HEADS = 64  # of requests of publishers, which often differ in the length of the body only

# Errors of OpenSSL if `ssl.ca` requires a client certificate, and the client has none that is accepted.
_CERTIFICATE_ERRORS = ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED")

_parse_cached = lru_cache(MAX_CACHED_HEADS)(http.parse_head)


class Handler(Protocol):
    """Responds to the requests of all ports of one type."""

    @property
    def max_body_size(self) -> int:
        """Bytes that the body of a request may have."""

    def check_head(self, connection: "HTTPConnection", request: Request, /) -> None:
        """Raise an AphlictError to reject a request before its body is received."""

    def on_request(self, connection: "HTTPConnection", request: Request, body: bytes, /) -> None:
        """Call `respond`, now or later, `stream` or `upgrade`; or raise an AphlictError to reject it."""


class Responder(Protocol):
    """Produces the response to one request over time: an event stream or a poll."""

    def final_bytes(self, cause: Cause, /) -> bytes:
        """Return the last bytes to send: the server closes the connection."""

    def on_close(self, reason: str, cause: Cause, /) -> None:
        """The connection has been closed, or was lost. `reason` is a part of a sentence, for the log."""


class HTTPConnection(Connection):
    """Receives requests and sends their responses, until it is closed or becomes a WebSocket.

    On trusted ports, requests may be pipelined: reading pauses until the response is sent. On other ports, a
    connection ends with its response if more was received before that.
    """

    __slots__ = (
        "_body",
        "_closes",
        "_handler",
        "_has_responded",
        "_head",
        "_idle_since",
        "_pipelined",
        "_request",
        "_request_since",
        "responder",
    )

    def __init__(self, sock: socket.socket, address: str, port: PortContext, handler: Handler) -> None:
        """Raises OSError if the system has no room for the connection."""
        server = port.server
        # Addresses repeat: behind a proxy, all connections share one object.
        super().__init__(sock, intern(address), port, next(server.numbers))
        now = server.timers.now
        self._command_debt = server.debts.take(address, now, server.limits)
        self._handler = handler
        self._idle_since = now  # when the connection began to wait for a request
        self._has_responded = False
        self._closes = False  # with the next response
        self._head = b""  # received part of a head
        self._request: Request | None = None  # whose body is being received
        self._request_since: float | None = None  # when the first byte of the request was received
        self._body: SizedParser | ChunkedParser | None = None
        self._pipelined = b""  # received behind the request
        self.responder: Responder | None = None  # the event stream or poll in progress
        server.poller.register(sock.fileno(), self)
        server.timers.add(self, now + self._first_check(server.limits))

    @property
    def _is_awaiting_response(self) -> bool:
        """Whether the handler has yet to call `respond`."""
        return self.state is RESPONSE and self.responder is None

    def local_address(self) -> str:
        """Return the server's address that the client connected to; empty if the connection is lost."""
        try:
            return str(self._socket.getsockname()[0])
        except OSError:
            return ""

    def charge(self, cost: int) -> None:
        """Charge a client. Publishers are not charged."""
        if not self.port.is_trusted:
            super().charge(cost)

    # Receiving

    def on_events(self, events: int, /) -> None:
        """Part of the poller's EventHandler."""
        if self.state is TLS:
            self._do_tls_handshake()
        else:
            super().on_events(events)

    def _do_tls_handshake(self) -> None:
        assert isinstance(self._socket, TLSSocket)
        poller, fd = self.port.server.poller, self._socket.fileno()
        try:
            self._socket.do_handshake()
        except ssl.SSLWantWriteError:
            poller.modify(fd, READ | WRITE)
        except ssl.SSLWantReadError:
            poller.modify(fd, READ)
        except OSError as error:
            if isinstance(error, ssl.SSLError) and error.reason in _CERTIFICATE_ERRORS:
                detail = getattr(error, "verify_message", "no client certificate")
                self.port.server.limit_counters.add("ssl.ca", self.address, detail)
            self._on_lost(error)
        else:
            self.state = REQUEST
            poller.modify(fd, READ)
            if self._socket.pending():
                self._receive()

    def _on_data(self, data: bytes) -> None:
        if self.state is RESPONSE:  # a request that is received now ends the connection
            self._pipelined = self._pipelined or data[:1]
            self.charge(1 + len(data) // BYTES_PER_COMMAND)
            return
        try:
            self._on_request_data(data)
        except AphlictError as error:
            self.reject(error)
        is_in_use = self.state is not CLOSED  # neither aborted nor upgraded
        if is_in_use and (self._incoming_size() or self in self.port.server.buffer_budget.accounts):
            self._count_incoming()

    def _on_request_data(self, data: bytes) -> None:
        """Read a part of a request, or several requests."""
        rest = data if self._body is not None else self._read_head(data)
        while rest and self.state is REQUEST:
            rest = self._read_head(rest) if self._body is None else self._read_body(self._body, rest)

    def _read_head(self, data: bytes) -> bytes:
        """Read the head of a request, and its body if that has been received. Returns the rest.

        A head is charged first: one that exceeds the limit is kept, and read after a pause.
        """
        self._head = head = self._head + data
        if not head:
            return b""
        if self._request_since is None:
            self._request_since = self._last_received
        if data:
            self.charge(1 + len(data) // BYTES_PER_COMMAND)
            if self._is_paused:
                return b""
        parse = _parse_cached if self.port.is_trusted else http.parse_head
        found = http.parse_request(head, self.port.server.limits.request_head, parse)
        if found is None:
            return b""
        request, size = found
        try:
            if self.port.proxies:
                self._identify_client(request)
                self.charge(0)
                if self._is_paused:
                    return b""
            self._head = b""
            self._handler.check_head(self, request)
            return self._begin_body(request, head[size:])
        except AphlictError as error:
            self.reject(error, request)
            return b""

    def _begin_body(self, request: Request, rest: bytes) -> bytes:
        size, max_size = request.body_size, self._handler.max_body_size
        if size == 0:
            return self._on_request(request, b"", rest)
        if size is not None and size > max_size:
            raise BodyTooLarge(f"the body is larger than {max_size} bytes")
        if size != 0 and request.minor and request.headers.get("expect", "").lower() == "100-continue":
            self.send(CONTINUE)
        if size is not None and len(rest) >= size:
            return self._on_request(request, rest[:size], rest[size:])
        self._request = request
        self._body = ChunkedParser(max_size) if size is None else SizedParser(size)
        return self._read_body(self._body, rest)

    def _read_body(self, parser: SizedParser | ChunkedParser, data: bytes) -> bytes:
        """Read a part of a body. Returns the rest."""
        rest = parser.feed(data)
        if rest is None:
            return b""
        request, self._request, self._body = self._request, None, None
        assert request is not None
        return self._on_request(request, parser.body(), rest)

    def _on_request(self, request: Request, body: bytes, rest: bytes) -> bytes:
        """Handle a complete request. Returns the rest if the next request may be read."""
        self._request_since = None
        self._pipelined = rest
        self.state = RESPONSE
        self.call(request, self._handler.on_request, self, request, body)
        if self._is_awaiting_response:
            self._is_paused = True
            self._update_events()
        return self._take_pipelined() if self.state is REQUEST else b""

    def _take_pipelined(self) -> bytes:
        pipelined, self._pipelined = self._pipelined, b""
        return pipelined

    def _incoming_size(self) -> int:
        body = 0 if self._body is None else self._body.size
        return len(self._head) + body + len(self._pipelined)

    def _drop_incoming(self) -> None:
        self._head, self._body, self._pipelined = b"", None, b""
        super()._drop_incoming()

    def _events_in_pause(self) -> int:
        """A publisher may close its sending side, and still wait for the response."""
        return 0 if self._is_awaiting_response else super()._events_in_pause()

    # The client's address

    def _identify_client(self, request: Request) -> None:
        """Take the client's address from the request, if a trusted proxy sent it. Raises TooManyFromAddress."""
        forwarded = request.headers.get("x-forwarded-for")
        self._set_address(self.port.proxies.client_address(self.peer, forwarded))

    def _set_address(self, address: str) -> None:
        """Count the connection for another address. Raises TooManyFromAddress: it is counted for it all the same."""
        if address != self.address:
            before, self.address = self.counted_address, address
            self._switch_debt(before, address)
            self.port.limiter.rekey(before, self.counted_address)

    def _switch_debt(self, before: str | None, address: str) -> None:
        """A client must not be charged for the commands of another one on the same connection of a proxy."""
        server = self.port.server
        now = server.timers.now
        if before is not None:
            server.debts.add(before, self._command_debt, now, server.limits, forgives=False)
            self._command_debt = 0
            if self._is_paused:
                server.timers.add(self, now)  # the pause is over
        self._command_debt += server.debts.take(address, now, server.limits)

    # Responding

    def respond(self, response: bytes, *, keep_alive: bool) -> None:
        """Send the complete response to the request; without `keep_alive` the connection ends with it."""
        if self.state is not RESPONSE:
            return  # closed in the meantime
        was_awaited = self._is_awaiting_response and self._is_paused
        self.responder = None
        is_ahead = not self.port.is_trusted and (bool(self._pipelined) or self._write_buffer is not None)
        if self._closes or not keep_alive or is_ahead:
            self._finish(response)
            return
        self.state = REQUEST
        self._has_responded = True
        self._idle_since = self.port.server.timers.now
        if was_awaited:
            self._is_paused = False
            self._update_events()
        self.send(response)
        if self.state is REQUEST:
            self._set_address(self.peer)  # the next request may be another client's
        if was_awaited:
            self._on_received(self._take_pipelined())

    def stream(self, responder: Responder) -> None:
        """Let a responder produce the response, with `send` until the connection is closed, or with `respond`."""
        self.responder = responder
        self._pipelined = self._pipelined[:1]

    def set_ack_timeout(self, seconds: float) -> None:
        """Lose the connection if data that was sent is not acknowledged for so long (tcp(7)).

        The client of an event stream sends nothing: only the acknowledgements of its system show that it is there.
        """
        if self.state is RESPONSE and self._socket.family in (socket.AF_INET, socket.AF_INET6):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))

    def respond_to(self, request: Request, status: int, fields: Mapping[str, str], body: bytes = b"") -> None:
        """Send a complete response; the connection stays open if the request allows it."""
        keep_alive, is_head = request.keeps_alive(), request.method == "HEAD"
        response = http.response(status, fields, body, keep_alive=keep_alive, is_head=is_head)
        self.respond(response, keep_alive=keep_alive)

    def reject(
        self,
        error: AphlictError,
        request: Request | None = None,
        fields: Mapping[str, str] = http.NO_FIELDS,
        members: Mapping[str, object] = http.NO_MEMBERS,
    ) -> None:
        """Send an error response, and close the connection unless `error.keep_alive`. Every error is sent here.

        `request` is None if it could not be parsed; `fields` and `members` add to the response.
        """
        if self.state >= CLOSING:
            return
        self.count(error)
        log.debug(log_events.REQUEST_REJECTED, self.number, self.address, error)
        keep_alive = error.keep_alive and request is not None and request.keeps_alive()
        is_head = request is not None and request.method == "HEAD"
        cors_fields = self.port.origins.cors_fields(http.NO_FIELDS if request is None else request.headers)
        fields = {**cors_fields, **fields}
        response = http.error_response(error, fields, members, keep_alive=keep_alive, is_head=is_head)
        if keep_alive:
            self.respond(response, keep_alive=True)
        else:
            self._finish(response)

    def call(self, request: Request, work: Callable[..., None], *arguments: object) -> None:
        """Call a part of the handling of a request. An error that it raises becomes the response."""
        try:
            work(*arguments)
        except AphlictError as error:
            self.reject(error, request)
        except Exception:
            log.exception(log_events.REQUEST_FAILED, request.method, request.path)
            self.reject(AphlictError("internal error; see the log of the server"), request)

    def upgrade(self, request: Request, open_session: Callable[[WebSocket], Session]) -> None:
        """Continue as a WebSocket, whose session `open_session` makes once it is open; this object must not be used
        afterwards. Raises BadRequest."""
        response = http.accept_response(request)
        data, self._pipelined = self._pipelined, b""
        websocket = WebSocket(self._socket, self.address, self.port, self.number)
        self._hand_over(websocket)
        try:
            websocket.open(response, open_session, data)
        except Exception:
            websocket.on_error()  # nothing else would close it
            raise

    # Closing

    def close_over_limit(self, limit: str, /) -> None:
        """Close the connection, as it holds more than the limit allows.

        A request that is being received gets 503, unless a part of the previous response was dropped: then the client
        would take the 503 for its rest.
        """
        if self.state is not REQUEST and not self._is_awaiting_response:
            super().close_over_limit(limit)
            return
        self.port.server.limit_counters.add(limit, self.address)
        if self._request_since is None or self._write_buffer is not None:
            self.abort(f"{limit} was reached")
        else:
            self.reject(BufferFull("no memory for this request now: too many others are in progress"))

    def close(self, _code: int, reason: str = "", log_reason: str = "", cause: Cause = "client") -> None:
        """Send the responder's final bytes, or the response to a publisher's request that has begun, and close."""
        responder, self.responder = self.responder, None
        if responder is not None:
            self._finish(responder.final_bytes(cause))
            responder.on_close(log_reason or reason, cause)
        elif self.port.is_trusted and (self._request_since is not None or self._is_awaiting_response):
            self._closes = True
        elif self.state < CLOSING:
            self.abort(log_reason or reason, cause)

    def _on_aborted(self, _state: State, log_reason: str, cause: Cause) -> None:
        responder, self.responder = self.responder, None
        if responder is not None:
            responder.on_close(log_reason, cause)

    # Deadlines

    def _first_check(self, limits: Limits) -> float:
        """Seconds until the first deadline, and between two on a trusted port."""
        return (
            min(limits.handshake, limits.body_time, limits.idle) if self.port.is_trusted else limits.handshake
        )

    def on_deadline(self, now: float, /) -> float | None:
        """Part of HasDeadline."""
        return self._check_progress(now) if self._is_awaiting_response else super().on_deadline(now)

    def _check_progress(self, now: float) -> float | None:
        limits, buffer = self.port.server.limits, self._write_buffer
        if self.responder is not None:
            return now + limits.handshake if buffer is None else self._check_stall(buffer, now)
        if self.state is TLS:
            self._time_out("limits.handshake", "its TLS handshake was not complete in time")
            return None
        check = self._check_publisher if self.port.is_trusted else self._check_client
        return check(now, limits)

    def _check_client(self, now: float, limits: Limits) -> float | None:
        end = self._idle_since + limits.handshake
        if now < end:
            return end
        if self._write_buffer is not None:  # the previous response
            return self._check_stall(self._write_buffer, now)
        if self._has_responded and not self._head:
            self._time_out_idle()
        else:
            self._time_out("limits.handshake", "its request was not complete in time")
        return None

    def _check_publisher(self, now: float, limits: Limits) -> float | None:
        if self._request_since is None:
            end = self._last_received + limits.idle
            if now < end:
                return min(end, now + self._first_check(limits))
            self._time_out_idle()
        else:
            end = self._request_since + limits.body_time
            if now < end:
                return end
            self._time_out("limits.body.time", "its request was not complete in time")
        return None

    def _time_out(self, limit: str, log_reason: str) -> None:
        self.port.server.limit_counters.add(limit, self.address)
        self.abort(log_reason)

    def _time_out_idle(self) -> None:
        """Not logged as a limit that was reached: idle connections are nothing unusual."""
        self.port.server.limit_counters.count("limits.idle")
        self.abort("it was idle")
