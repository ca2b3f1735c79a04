"""TLS over a non-blocking socket, of which one call reads a bounded number of bytes.

`ssl.SSLSocket` has OpenSSL read from the socket until there is application data (SSL_MODE_AUTO_RETRY): records that
bring none, such as KeyUpdate (RFC 8446, 4.6.3), keep one call busy for as long as they arrive. Here OpenSSL is given
the records of what one `recv` returned, one by one.
"""

import socket
import ssl
from contextlib import suppress
from typing import NamedTuple

RECORD = 16 * 1024  # bytes of application data in the largest record (RFC 8446, 5.1)
HEADER = 5  # bytes before the encrypted part of a record, of which the last two are its length
MAX_EMPTY_RECORDS = 32  # in a row; OpenSSL has the same limit, but for TLS 1.2 alone
SMALLEST_FRAME = 6  # bytes of a WebSocket frame from a browser; a record with less is charged like a command
MAX_UNSENT = 64 * 1024  # bytes of answers to records that wait for a client that does not read them

_send = socket.socket.send  # without the search that `super()` is: it is called for every frame


class Bridge(NamedTuple):
    """What the TLS of all connections of a loop reads from and writes to, in one call at a time.

    It is empty between two calls: OpenSSL keeps a record that is not whole in memory of its own. A pair for each
    connection would keep 5 KB from its handshake.
    """

    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO


def make_bridge() -> Bridge:
    """Make the one of a loop."""
    return Bridge(ssl.MemoryBIO(), ssl.MemoryBIO())


class TLSSocket(socket.socket):
    """The server's side of a TLS connection; takes the descriptor of a connected socket.

    As with `ssl.SSLSocket`, a `send` that raises BlockingIOError has to be repeated with the same bytes: a record of
    them may have been made. Past MAX_EMPTY_RECORDS in `empty_records`, those in a row that brought no application
    data, the connection has to be closed. Once `is_closing` is set, what comes is returned as it came.
    """

    __slots__ = (
        "_bridge",
        "_cost",
        "_header",
        "_is_over",
        "_missing",
        "_promised",
        "_ready",
        "_tls",
        "_unsent",
        "empty_records",
        "is_closing",
    )

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, bridge: Bridge) -> None:
        tls = context.wrap_bio(*bridge, server_side=True)
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self.setblocking(False)
        self._bridge = bridge
        self._tls = tls
        self._header = b""  # of the next record, where it has not come whole
        self._missing = 0  # bytes of the record that is being read
        self._is_over = False  # nothing more can be read
        self._ready = b""  # what came together with the end of the handshake
        self._unsent = b""  # of what was encrypted
        self._promised = 0  # bytes of the next `send` that are a part of that
        self._cost = 0
        self.empty_records = 0
        self.is_closing = False

    @property
    def certificate(self) -> bytes | None:
        """The certificate that the client has shown (DER), or None; to be asked for after the handshake."""
        return self._tls.getpeercert(binary_form=True)

    # Reading

    def do_handshake(self) -> None:
        """Go on with the handshake. Raises SSLWantReadError or SSLWantWriteError until it is complete, OSError (of
        which SSLError is one) where it fails."""
        self._flush()
        with suppress(BlockingIOError):
            received = super().recv(RECORD)
            if not received:
                raise ConnectionResetError("it ended during the TLS handshake")
            self._bridge.incoming.write(received)
        try:
            self._tls.do_handshake()
            if self._bridge.incoming.pending:
                self._ready += self._decrypt(self._bridge.incoming.read())
        finally:
            self._clear_bridge()
        self._flush()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Application data out of `size` bytes of what has come; none at the end. Raises SSLWantReadError where they
        hold none, OSError where the connection is lost."""
        if self._ready:
            ready, self._ready = self._ready, b""
            return ready
        if self._is_over:
            return b""
        received = super().recv(size, flags)
        if not received or self.is_closing:
            return received
        try:
            data = self._decrypt(received)
        finally:
            self._clear_bridge()
        if not data and not self._is_over:
            raise ssl.SSLWantReadError
        return data

    def pending(self) -> bool:
        """Whether `recv` has something to return that epoll does not know of."""
        return bool(self._ready) or self._is_over

    def take_cost(self) -> int:
        """What the records since the last call cost beside their data, in commands (`limits.commands`)."""
        cost, self._cost = self._cost, 0
        return cost

    def _decrypt(self, received: bytes) -> bytes:
        """All application data in these bytes. Raises SSLError where there is none before what is wrong."""
        parts: list[bytes] = []
        start = 0
        while start < len(received) and not self._is_over and self.empty_records <= MAX_EMPTY_RECORDS:
            end = self._end_of_record(received, start)
            self._bridge.incoming.write(received[start:end])
            start = end
            try:
                part = self._tls.read(RECORD)
            except ssl.SSLWantReadError:
                if not self._missing and not self._header:
                    self.empty_records += 1
                    self._cost += 1
                continue
            except ssl.SSLError:
                if not parts:
                    raise
                part = b""
            self._is_over = not part  # close_notify, or an error
            self.empty_records = 0
            self._cost += len(part) < SMALLEST_FRAME
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _end_of_record(self, received: bytes, start: int) -> int:
        """Where the record ends that goes on at `start`, or what has come of it."""
        if not self._missing:
            known = len(self._header)
            header = self._header + received[start : start + HEADER - known]
            if len(header) < HEADER:
                self._header = header
                return len(received)
            self._header = b""
            self._missing = HEADER - known + int.from_bytes(header[3:], "big")
        end = min(start + self._missing, len(received))
        self._missing -= end - start
        return end

    def _clear_bridge(self) -> None:
        """Leave nothing to other connections: what was not read is dropped, what was written is sent."""
        incoming, outgoing = self._bridge
        if incoming.pending:
            incoming.read()
        if outgoing.pending:
            self._unsent += outgoing.read()
            with suppress(OSError):  # what is lost is noticed when it is read
                self._flush()
            if len(self._unsent) > MAX_UNSENT:
                raise ConnectionAbortedError("it does not read the answers to its TLS records")

    # Sending

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:  # type: ignore[override]
        """Encrypt and send. Returns how many bytes were taken; raises BlockingIOError or SSLWantWriteError where that
        is none, another OSError where the connection is lost."""
        if self._unsent or len(data) > RECORD:
            return self._send_by_records(data)
        try:
            self._tls.write(data)
        finally:
            encrypted = self._bridge.outgoing.read()
        try:
            sent = _send(self, encrypted, flags)
        except BlockingIOError:
            sent = 0
        if sent != len(encrypted):
            self._unsent, self._promised = encrypted[sent:], len(data)
            raise BlockingIOError
        return len(data)

    def _send_by_records(self, data: bytes | memoryview) -> int:
        """Send what was encrypted before, and then one record after the other: no more than one waits here."""
        self._flush()
        taken, self._promised = self._promised, 0
        rest = memoryview(data)
        while taken < len(data):
            try:
                taken += self.send(rest[taken : taken + RECORD])
            except BlockingIOError:
                if not taken:
                    raise
                break
        return taken

    def _flush(self) -> None:
        """Send what was encrypted. Raises SSLWantWriteError where the socket does not take all of it."""
        if self._unsent:
            try:
                sent = _send(self, self._unsent)
            except BlockingIOError:
                sent = 0
            self._unsent = self._unsent[sent:]
            if self._unsent:
                raise ssl.SSLWantWriteError

    def unwrap(self) -> None:
        """Send close_notify, and do not wait for the answer."""
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        finally:
            self._clear_bridge()
