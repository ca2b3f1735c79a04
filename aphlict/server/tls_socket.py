"""TLS over a non-blocking socket; each call reads a bounded number of bytes.

`ssl.SSLSocket` has OpenSSL read from the socket until there is application data (SSL_MODE_AUTO_RETRY): records
without any, such as KeyUpdate (RFC 8446, 4.6.3), keep one call busy for as long as they arrive. Here OpenSSL receives
the records of one `recv`, one by one.
"""

import socket
import ssl
from contextlib import suppress
from typing import NamedTuple

MAX_RECORD = 16 * 1024  # bytes of application data in a record (RFC 8446, 5.1)
HEADER_SIZE = 5  # bytes before the encrypted part of a record; the last two are its length
MAX_EMPTY_RECORDS = 32  # in a row; OpenSSL has the same limit for TLS 1.2 only
MIN_FRAME = 6  # bytes of a WebSocket frame from a client; a record with less is charged like a command
MAX_UNSENT = 64 * 1024  # bytes of responses to records that a client does not read

_send = socket.socket.send  # called for every frame: `super()` would look it up each time


class Bridge(NamedTuple):
    """The buffers from which the TLS of all connections of an event loop reads and to which it writes.

    They are empty between two calls: OpenSSL keeps an incomplete record in its own memory. A pair for each connection
    would keep 5 KB of its handshake.
    """

    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO


def make_bridge() -> Bridge:
    """Make the bridge of an event loop."""
    return Bridge(ssl.MemoryBIO(), ssl.MemoryBIO())


class TLSSocket(socket.socket):
    """The server's side of a TLS connection; takes over the descriptor of a connected socket.

    As with `ssl.SSLSocket`, repeat a `send` that raises BlockingIOError with the same bytes: they may have been
    encrypted into a record. `empty_records` counts those in a row without application data: close the connection if
    there are more than MAX_EMPTY_RECORDS. Once `is_closing` is set, `recv` returns bytes without decrypting them.
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
        self._header = b""  # received part of the header of the next record
        self._missing = 0  # bytes of the current record
        self._is_over = False  # no more data can be read
        self._ready = b""  # data received together with the end of the handshake
        self._unsent = b""  # encrypted bytes that the socket did not accept
        self._promised = 0  # bytes of the next `send` that `_unsent` contains already
        self._cost = 0
        self.empty_records = 0
        self.is_closing = False

    @property
    def certificate(self) -> bytes | None:
        """The client certificate (DER), or None. Only after the handshake."""
        return self._tls.getpeercert(binary_form=True)

    # Reading

    def do_handshake(self) -> None:
        """Continue the handshake. Raises SSLWantReadError or SSLWantWriteError until it is complete, another OSError
        (SSLError is one) if it fails."""
        self._flush()
        with suppress(BlockingIOError):
            received = super().recv(MAX_RECORD)
            if not received:
                raise ConnectionResetError("the client closed it during the TLS handshake")
            self._bridge.incoming.write(received)
        try:
            self._tls.do_handshake()
            if self._bridge.incoming.pending:
                self._ready += self._decrypt(self._bridge.incoming.read())
        finally:
            self._clear_bridge()
        self._flush()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return the application data in up to `size` received bytes; empty at the end. Raises SSLWantReadError if
        there is none in them, another OSError if the connection is lost."""
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
        """Return whether `recv` has a result that epoll does not report."""
        return bool(self._ready) or self._is_over

    def take_cost(self) -> int:
        """Return the cost of the records since the last call, without their data, in units of `limits.commands`."""
        cost, self._cost = self._cost, 0
        return cost

    def _decrypt(self, received: bytes) -> bytes:
        """Return all application data in these bytes. Raises SSLError if there is none before an invalid record."""
        parts: list[bytes] = []
        start = 0
        while start < len(received) and not self._is_over and self.empty_records <= MAX_EMPTY_RECORDS:
            end = self._end_of_record(received, start)
            self._bridge.incoming.write(received[start:end])
            start = end
            try:
                part = self._tls.read(MAX_RECORD)
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
            self._cost += len(part) < MIN_FRAME
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _end_of_record(self, received: bytes, start: int) -> int:
        """Return the end of the record that continues at `start`, or of its received part."""
        if not self._missing:
            known = len(self._header)
            header = self._header + received[start : start + HEADER_SIZE - known]
            if len(header) < HEADER_SIZE:
                self._header = header
                return len(received)
            self._header = b""
            self._missing = HEADER_SIZE - known + int.from_bytes(header[3:], "big")
        end = min(start + self._missing, len(received))
        self._missing -= end - start
        return end

    def _clear_bridge(self) -> None:
        """Leave nothing to other connections: drop data that OpenSSL has not read, send data that it has written."""
        incoming, outgoing = self._bridge
        if incoming.pending:
            incoming.read()
        if outgoing.pending:
            self._unsent += outgoing.read()
            with suppress(OSError):  # the next `recv` reports a lost connection
                self._flush()
            if len(self._unsent) > MAX_UNSENT:
                raise ConnectionAbortedError("the client does not read the responses to its TLS records")

    # Sending

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:  # type: ignore[override]
        """Encrypt and send. Returns how many bytes were accepted; raises BlockingIOError or SSLWantWriteError if none
        were, another OSError if the connection is lost."""
        if self._unsent or len(data) > MAX_RECORD:
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
        """Send data that was encrypted before, then one record after the other: at most one is left unsent."""
        self._flush()
        accepted, self._promised = self._promised, 0
        rest = memoryview(data)
        while accepted < len(data):
            try:
                accepted += self.send(rest[accepted : accepted + MAX_RECORD])
            except BlockingIOError:
                if not accepted:
                    raise
                break
        return accepted

    def _flush(self) -> None:
        """Send encrypted data. Raises SSLWantWriteError if the socket does not accept all of it."""
        if self._unsent:
            try:
                sent = _send(self, self._unsent)
            except BlockingIOError:
                sent = 0
            self._unsent = self._unsent[sent:]
            if self._unsent:
                raise ssl.SSLWantWriteError

    def unwrap(self) -> None:
        """Send close_notify, without waiting for the response."""
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        finally:
            self._clear_bridge()
