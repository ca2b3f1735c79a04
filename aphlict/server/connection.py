"""One browser's connection: a small object that reads a socket and writes to it, and never waits."""

import logging
import math
import socket
import ssl
from collections.abc import Hashable

from aphlict.config.settings import BYTES_PER_COMMAND, Limits
from aphlict.errors import AphlictError, FrameTimeout, ProtocolError
from aphlict.protocol import http, websocket
from aphlict.protocol.forwarded import TrustedProxies
from aphlict.protocol.http import Request
from aphlict.protocol.websocket import FrameParser, WSMessage, decode_short_text
from aphlict.server.charging import Payer
from aphlict.server.context import Doorkeeper, Surroundings
from aphlict.server.limits import party
from aphlict.server.poller import GONE, HUNG_UP, READ, WRITE
from aphlict.server.sending import CLOSE_TIMEOUT, NOTHING, WOULD_BLOCK, State
from aphlict.server.tls_socket import TLSSocket
from aphlict.server.write_buffer import WriteBuffer

log = logging.getLogger(__name__)

CHUNK = 16 * 1024  # bytes read at a time

_PING = websocket.encode_frame(websocket.PING, b"")
_UNPROVEN = ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED")  # where `ssl.ca` asks for one


class Application:
    """What a connection serves: decides about requests and answers messages."""

    def on_request(self, connection: "Connection", request: Request, /) -> None:
        """The head of a request came. Calls `upgrade` or what a subclass of Connection has, or raises an
        AphlictError: nothing reads a body, so a request that announces one has to be refused."""
        raise NotImplementedError

    def on_message(self, connection: "Connection", received: WSMessage, /) -> None:
        """A text (str) or binary (bytes) message came."""

    def on_close(self, connection: "Connection", reason: str, /) -> None:
        """The connection, a WebSocket before, is gone. `reason` is a part of a sentence."""


class Context(Surroundings):
    """What all connections of one kind share."""

    def __init__(self, application: Application, door: Doorkeeper, surroundings: Surroundings) -> None:
        vars(self).update(vars(surroundings))
        self.application = application
        self.door = door
        self.proxies = TrustedProxies(())


class Connection(Payer):
    """One accepted socket. Small: it exists a hundred thousand times.

    `tag` belongs to the application. Nothing here raises out of `on_events`, `send`, `send_all` or `close`.
    """

    __slots__ = ("_head", "_pinged", "_reader", "number", "peer", "tag")

    context: Context
    watched_in_pause = HUNG_UP  # what a browser owes that goes away is known at once

    def __init__(self, sock: socket.socket, address: str, context: Context) -> None:
        super().__init__(sock, address, context)
        self._pinged = 0.0  # when the last ping was sent
        self._head = b""
        self._reader: FrameParser | None = None
        self.peer = address  # of who connected: a proxy, perhaps
        self.number = next(context.numbers)
        self.tag: object = None
        context.poller.register(sock.fileno(), self)
        context.deadlines.add(self, context.deadlines.now + self._patience(context.limits))

    def _patience(self, limits: Limits) -> float:
        """Seconds until the first look at how far it is."""
        return limits.handshake

    @property
    def certificate(self) -> bytes | None:
        """The certificate that the other end has shown (DER); None where it has shown none, or none yet."""
        if self.state is State.TLS or not isinstance(self._socket, TLSSocket):
            return None
        return self._socket.certificate

    # Receiving

    def on_events(self, events: int, /) -> None:
        """Read and write what can be."""
        if self.state is State.TLS:
            self._shake_hands()
            return
        if events & WRITE and self._waiting is not None:
            self._drain()
        if self._paused:
            if events & (GONE | HUNG_UP):
                self._lost(None)
        elif events & ~WRITE:
            self._receive()

    def on_error(self) -> None:
        """End after an error of our own."""
        self.abort("internal error")

    def _shake_hands(self) -> None:
        assert isinstance(self._socket, TLSSocket)
        try:
            self._socket.do_handshake()
        except ssl.SSLWantWriteError:
            self._watch(READ | WRITE)
        except ssl.SSLWantReadError:
            self._watch(READ)
        except OSError as error:
            if isinstance(error, ssl.SSLError) and error.reason in _UNPROVEN:
                why = getattr(error, "verify_message", "it shows no certificate")
                self.context.hits.add("ssl.ca", self.address, why)
            self._lost(error)
        else:
            self.state = State.HEAD
            self._watch(READ)
            if self._socket.pending():
                self._receive()

    def _receive(self) -> None:
        """Read once; a TLS connection until nothing is left inside its layer, which epoll cannot see."""
        while self.state is not State.CLOSED:
            try:
                data = self._socket.recv(CHUNK)
            except WOULD_BLOCK:
                self._charge_records()
                return
            except OSError as error:
                self._lost(error)
                return
            if not data:
                self._lost(None)
                return
            self._on_data(data)
            self._charge_records()
            if self._paused or not isinstance(self._socket, TLSSocket) or not self._socket.pending():
                return

    def _on_data(self, data: bytes) -> None:
        if self.state is State.CLOSING:
            return
        now = self.context.deadlines.now
        if self._spent:
            self._give_back(now)
        self._heard = now
        try:
            if self.state is State.OPEN:
                self._on_frames(data)
            elif self.state is State.HEAD:
                self._on_head(data)
        except ProtocolError as error:
            self._fail(error)
        except AphlictError as error:
            self.refuse(error)
        if self._reader is not None or self._head or self in self.context.pool.accounts:
            self._count_incoming()

    def _count_incoming(self) -> None:
        """Count what has arrived of something that is not whole, with all that waits."""
        size = self._incoming() if self.state <= State.OPEN else 0
        if self.context.pool.receive(self, size):
            self._make_room()

    def _incoming(self) -> int:
        """Bytes that are kept of a head, or of a frame or message."""
        return len(self._head) if self._reader is None else self._reader.size

    def _drop_incoming(self) -> None:
        self._head, self._reader = b"", None
        super()._drop_incoming()

    def _fail(self, error: ProtocolError) -> None:
        self.count(error)
        self.close(error.close_code, str(error), f"it broke the protocol: {error}")

    def count(self, error: AphlictError) -> None:
        """Count the limit that was passed, if it is one."""
        if error.limit is not None:
            self.context.hits.add(error.limit, self.address)

    def _on_head(self, data: bytes) -> None:
        """Read a head. It is charged before; what cannot be paid yet is read after a pause, where `data` is empty."""
        self._head = head = self._head + data
        if data:
            self.charge(1 + len(data) // BYTES_PER_COMMAND)
            if self._paused:
                return
        found = http.parse_request(head, self.context.limits.request_head)
        if found is None:
            return
        request, size = found
        try:
            self._find_browser(request)
            self.charge(0)
            if self._paused:
                return
            self._head = head[size:]
            self.context.application.on_request(self, request)
        except AphlictError as error:
            self.refuse(error, request)
            return
        if self.state is State.OPEN and self._head:
            first, self._head = self._head, b""
            self._on_frames(first)

    def _on_frames(self, data: bytes) -> None:
        """Do what came. It is charged before; what cannot be paid yet is done after a pause: then `data` is empty."""
        if len(data) >= BYTES_PER_COMMAND:
            self.charge(len(data) // BYTES_PER_COMMAND)
            if self._paused:
                self._frame_reader().keep(data)
                return
        if self._reader is None:
            received = decode_short_text(data, self.context.limits.client_frame)
            if received is not None:
                self.charge(1)
                self.context.application.on_message(self, received)
                return
        self._read_frames(self._frame_reader(), data)

    def _frame_reader(self) -> FrameParser:
        if self._reader is None:
            self._reader = FrameParser(self.context.limits.client_frame, self._heard)
        return self._reader

    def _read_frames(self, reader: FrameParser, data: bytes) -> None:
        is_charged = not data
        for received in reader.feed(data, self._heard):
            self.charge(reader.take_frame_count())
            is_charged = True
            self._on_received(received)
            if self.state is not State.OPEN or self._paused:
                return  # the reader keeps the rest
        self.charge(max(reader.take_frame_count(), 0 if is_charged else 1))
        if reader.is_idle:
            self._reader = None

    def resume(self) -> None:
        """Read on after a pause."""
        if not self._paused or self.state > State.OPEN:
            return
        self._paused = False
        self._watch(READ if self._waiting is None else READ | WRITE)
        if self._reader is not None or (self._head and self.state is State.HEAD):
            self._on_data(b"")  # what was read before the pause
        if not self._paused and self.state <= State.OPEN:
            self._receive()

    def _on_received(self, received: WSMessage) -> None:
        if received.opcode in (websocket.TEXT, websocket.BINARY):
            self.context.application.on_message(self, received)
            return
        assert isinstance(received.data, bytes)
        if received.opcode == websocket.PING:
            self.send(websocket.encode_frame(websocket.PONG, received.data))
        elif received.opcode == websocket.CLOSE:
            self._on_close_frame(websocket.decode_close(received.data))

    def _on_close_frame(self, close: websocket.Close) -> None:
        """Answer a close frame (RFC 6455, 5.5.1), then end: the server closes first (7.1.1)."""
        code = websocket.NORMAL if close.code == websocket.NO_STATUS else close.code
        self.close(code, "", f"it closed with {close.code} {close.reason}".rstrip())

    # Becoming something

    def _find_browser(self, request: Request) -> None:
        """Take the address of the browser from the request, if whoever brings it is believed.

        Raises TooManyFromAddress.
        """
        proxies = self.context.proxies
        if proxies:
            self._speak_for(proxies.client_address(self.peer, request.headers.get("x-forwarded-for")))

    def forget_browser(self) -> None:
        """Between two requests of whoever a proxy brings: the connection is the proxy's own."""
        self._speak_for(self.peer)

    def _speak_for(self, address: str) -> None:
        if address != self.address:
            before, self.address = self.counted, address
            self._change_account(before, address)
            self.context.door.rename(before, self.counted)

    def _change_account(self, before: str | None, address: str) -> None:
        """What one browser spent on a proxy's connection is not charged to the next one."""
        context, now = self.context, self.context.deadlines.now
        if before is not None:
            context.debts.add(before, self._spent, now, context.limits, forgives=False)
            self._spent = 0
            if self._paused:
                context.deadlines.add(self, now)  # the next one need not wait
        self._spent += context.debts.take(address, now, context.limits)

    @property
    def party(self) -> Hashable:
        """The address that budgets count it by, or its network; by itself where a proxy speaks for nobody."""
        address = self.counted
        return self if address is None else party(address)

    @property
    def counted(self) -> str | None:
        """The address that the door counts it by; None for a proxy that speaks for nobody."""
        proxies = self.context.proxies
        return None if proxies and self.address == self.peer and proxies.trusts(self.peer) else self.address

    def upgrade(self, request: Request) -> None:
        """Answer the handshake; the connection is a WebSocket from here on. Raises BadRequest."""
        answer = http.accept_response(request)
        self.state = State.OPEN
        limits = self.context.limits
        if limits.ping_interval < limits.handshake:  # else the handshake's own deadline comes early enough
            self.context.deadlines.add(self, self._heard + limits.ping_interval)
        self.send(answer)

    # Ending

    def refuse(self, error: AphlictError, request: Request | None = None) -> None:
        """Answer a request that cannot be served (None where it cannot even be read), and end."""
        self.count(error)
        log.debug("[%d] refused a request of %s: %s", self.number, self.address, error)
        is_head = request is not None and request.method == "HEAD"
        self._finish(http.error_response(error, is_head=is_head))

    def close(self, code: int, reason: str = "", why: str = "") -> None:
        """Send a close frame and end, at the latest CLOSE_TIMEOUT later. `why` is for the log."""
        if self.state < State.OPEN:
            self.abort(why)
        elif self.state is State.OPEN:
            why = why or f"closed with {code} {reason}".rstrip()
            self._finish(websocket.encode_close(code, reason))
            self.context.application.on_close(self, why)

    def abort(self, why: str) -> None:
        """End at once."""
        if self.state is State.CLOSED:
            return
        was_open = self.state is State.OPEN
        self.context.poller.unregister(self._socket.fileno())
        self.context.deadlines.cancel(self)
        self.state = State.CLOSED
        if self._waiting is not None:
            self._waiting.clear()
        self._waiting = NOTHING
        self._drop_incoming()
        self._socket.close()
        counted = self.counted
        if self._spent and counted is not None:
            now = self.context.deadlines.now
            self._give_back(now)
            self.context.debts.add(counted, self._spent, now, self.context.limits)
        self.context.door.leave(counted)
        if was_open:
            self.context.application.on_close(self, why)

    def on_deadline(self, now: float, /) -> float | None:
        """Read on after a pause, and give up on who is too slow."""
        if self._paused and self.state <= State.OPEN:
            end = self._pause_end()
            if now < end:
                return end
            self.resume()
            if self._paused:
                return None  # again, until a deadline of its own
        return self._check_progress(now)

    def _check_progress(self, now: float) -> float | None:
        """Give up on who is too slow with the handshake, or silent (a ping first), or does not end. Returns when to
        look again."""
        if self.state is State.OPEN:
            return self._check_silence(now, self.context.limits)
        if self.state is State.CLOSING:
            if now < self._heard + CLOSE_TIMEOUT:
                return self._heard + CLOSE_TIMEOUT
            waiting = self._waiting  # a long answer, perhaps, over a slow line
            again = waiting.next_look(now, CLOSE_TIMEOUT) if waiting is not None and waiting.size else None
            if again is not None:
                return again
            self.abort("it did not end in time")
        elif self.state < State.OPEN:
            self.context.hits.add("limits.handshake", self.address)
            self.abort("it was too slow with its handshake")
        return None

    def _check_silence(self, now: float, limits: Limits) -> float | None:
        end = math.inf if self._reader is None else self._reader.since + limits.client_frame_time
        if now >= end:
            self._fail(FrameTimeout("a message did not become whole in time"))
            return None
        again = self._look(now, limits)
        return None if again is None else min(again, end)

    def _look(self, now: float, limits: Limits) -> float | None:
        if self._waiting is not None:  # what it takes is as good as what it says
            return self._check_stall(self._waiting, now)
        silence = now - self._heard
        if silence < limits.ping_interval:
            return self._heard + limits.ping_interval
        if silence >= limits.ping_timeout:
            self.context.hits.count("ping.timeout")
            self.abort(f"it was silent for {silence:.0f} s")
            return None
        if self._pinged <= self._heard or now - self._pinged >= limits.ping_interval:
            self._pinged = now
            self.send(_PING)
            if self.state is not State.OPEN:
                return None
        # A browser that answers is pinged again in time, however long the silent ones are waited for.
        return min(self._heard + limits.ping_timeout, now + limits.ping_interval)

    def _check_stall(self, waiting: WriteBuffer, now: float) -> float | None:
        """Give up on who has taken nothing since the last look: what waits for it cannot wait for ever."""
        again = waiting.next_look(now, self.context.limits.ping_interval)
        if again is None:
            self.give_up("limits.send_buffer")
        return again
