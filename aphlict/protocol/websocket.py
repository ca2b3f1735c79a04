"""WebSocket frames (RFC 6455): parses those of clients, encodes those of the server."""

import codecs
from collections.abc import Iterator
from typing import NamedTuple

from tornado.util import _websocket_mask as mask  # compiled, or pure Python where no compiler was available

from aphlict.errors import FrameTooLarge, InvalidUTF8, ProtocolError

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

FINAL, MASKED, LENGTH, RESERVED = 0x80, 0x80, 0x7F, 0x70
CONTROL_LIMIT = 125
OPCODES = {CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG}

NORMAL, GOING_AWAY, NO_STATUS, TRY_AGAIN_LATER = 1000, 1001, 1005, 1013
# RFC 6455, 7.4, and the IANA registry: codes that a close frame may carry.
CLOSE_CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}

PARSER_BYTES = 1500  # that a FrameParser takes without data

_UTF8 = codecs.getincrementaldecoder("utf-8")


class WSMessage(NamedTuple):
    """A complete message or control frame. `data` is str for TEXT, else bytes."""

    opcode: int
    data: str | bytes


class Close(NamedTuple):
    """The payload of a close frame."""

    code: int
    reason: str


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """Encode a complete frame of the server: final, not masked."""
    size = len(payload)
    first = FINAL | opcode
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def encode_close(code: int, reason: str = "") -> bytes:
    """Encode a close frame; the reason is truncated to what a control frame can hold."""
    text = reason.encode()[: CONTROL_LIMIT - 2].decode(errors="ignore").encode()
    return encode_frame(CLOSE, code.to_bytes(2, "big") + text)


def decode_close(payload: bytes) -> Close:
    """Decode the payload of a close frame (RFC 6455, 5.5.1). Raises ProtocolError, InvalidUTF8."""
    if not payload:
        return Close(NO_STATUS, "")
    if len(payload) == 1:
        raise ProtocolError("a close frame with one byte of payload")
    code = int.from_bytes(payload[:2], "big")
    if code not in CLOSE_CODES:
        raise ProtocolError(f"close code {code} is not allowed in a close frame")
    return Close(code, decode_text(payload[2:]))


def decode_text(payload: bytes) -> str:
    """Decode UTF-8. Raises InvalidUTF8."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise InvalidUTF8("a text message that is not UTF-8") from error


def decode_short_text(data: bytes, limit: int) -> WSMessage | None:
    """Decode data that is exactly one complete, masked text frame of less than 126 bytes, as most data of clients is.

    None for anything else, which a FrameParser has to parse. Raises InvalidUTF8.
    """
    size = len(data) - 6
    if size < 0 or data[0] != FINAL | TEXT or data[1] != MASKED | size or size > limit:
        return None
    if size >= 126:
        return None
    return WSMessage(TEXT, decode_text(mask(data[2:6], data[6:])))


class FrameParser:
    """Parses the frames of one client from data in any split; keeps only what is incomplete.

    `limit`: bytes of a message, with all its fragments. `since`: when the incomplete message or frame started, on the
    clock of `now`.
    """

    __slots__ = (
        "_buffer",
        "_control",
        "_decoder",
        "_final",
        "_frame_count",
        "_left",
        "_limit",
        "_mask",
        "_message",
        "_message_opcode",
        "_opcode",
        "since",
    )

    def __init__(self, limit: int, now: float = 0.0) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._opcode: int | None = None  # of the current frame
        self._final = False
        self._left = 0  # payload bytes of the current frame that are missing
        self._mask = b""
        self._control = bytearray()
        self._message_opcode: int | None = None  # TEXT or BINARY while a message is incomplete
        self._message = bytearray()
        self._decoder = _UTF8()
        self._frame_count = 0  # frames started since `take_frame_count`
        self.since = now

    @property
    def is_idle(self) -> bool:
        """Whether nothing is incomplete, so that the parser may be discarded."""
        return self._opcode is None and self._message_opcode is None and not self._buffer

    @property
    def size(self) -> int:
        """The memory that the parser takes, with its data, in bytes."""
        return PARSER_BYTES + len(self._buffer) + len(self._message) + len(self._control)

    def take_frame_count(self) -> int:
        """Return how many frames have started since the last call."""
        count, self._frame_count = self._frame_count, 0
        return count

    def keep(self, data: bytes) -> None:
        """Append data for the next call of `feed`, without parsing it."""
        self._buffer += data

    def feed(self, data: bytes, now: float = 0.0) -> Iterator[WSMessage]:
        """Yield what is complete. Raises ProtocolError for a violation of RFC 6455, after what precedes it."""
        self._buffer += data
        while self._read_header() and self._read_payload():
            received = self._finish_frame()
            if (
                self._message_opcode is None
            ):  # no fragmented message is incomplete, which a control frame may interrupt
                self.since = now
            if received is not None:
                yield received

    def _read_header(self) -> bool:
        """Parse the header of a frame (5.2); False while it is incomplete. True also if it was parsed before."""
        if self._opcode is not None:
            return True
        buffer = self._buffer
        if len(buffer) < 2:
            self._check_first_byte()
            return False
        self._check_first_byte()
        size = buffer[1] & LENGTH
        if not buffer[1] & MASKED:
            raise ProtocolError("a frame of a client must be masked")
        if buffer[0] & 0x08 and size > CONTROL_LIMIT:
            raise ProtocolError("a control frame of more than 125 bytes")
        extra = {126: 2, 127: 8}.get(size, 0)
        if len(buffer) < 6 + extra:
            return False
        if extra:
            size = int.from_bytes(buffer[2 : 2 + extra], "big")
            if size >> 63:
                raise ProtocolError("a frame length with its most significant bit set")
        self._begin_frame(buffer[0], size, bytes(buffer[2 + extra : 6 + extra]))
        del buffer[: 6 + extra]
        return True

    def _check_first_byte(self) -> None:
        if not self._buffer:
            return
        first = self._buffer[0]
        if first & RESERVED:
            raise ProtocolError("a reserved bit is set, but no extension was negotiated")
        opcode = first & 0x0F
        if opcode not in OPCODES:
            raise ProtocolError(f"unknown opcode {opcode}")
        if opcode & 0x08:
            if not first & FINAL:
                raise ProtocolError("a fragmented control frame")
        elif (opcode == CONTINUATION) != (self._message_opcode is not None):
            raise ProtocolError(
                "a continuation frame without a first one, or a first one within a fragmented message"
            )

    def _begin_frame(self, first: int, size: int, key: bytes) -> None:
        opcode = first & 0x0F
        self._frame_count += 1
        if not opcode & 0x08:
            if len(self._message) + size > self._limit:
                raise FrameTooLarge(f"a message of more than {self._limit} bytes")
            if opcode != CONTINUATION:
                self._message_opcode = opcode
        self._opcode, self._final, self._left, self._mask = opcode, bool(first & FINAL), size, key

    def _read_payload(self) -> bool:
        """Unmask and validate the received payload; False while the frame is incomplete."""
        assert self._opcode is not None
        chunk = bytes(self._buffer[: self._left])
        del self._buffer[: len(chunk)]
        self._left -= len(chunk)
        plain = mask(self._mask, chunk)
        if self._opcode & 0x08:
            self._control += plain
        else:
            if self._message_opcode == TEXT:
                self._check_text(plain)
            self._message += plain
        turn = len(chunk) % 4
        self._mask = self._mask[turn:] + self._mask[:turn]
        return not self._left

    def _check_text(self, plain: bytes) -> None:
        """Reject invalid UTF-8 at its first byte, even within a frame (RFC 6455, 8.1; Autobahn case 6.4)."""
        try:
            self._decoder.decode(plain, final=self._final and not self._left)
        except UnicodeDecodeError as error:
            raise InvalidUTF8("a text message that is not UTF-8") from error

    def _finish_frame(self) -> WSMessage | None:
        opcode, self._opcode = self._opcode, None
        assert opcode is not None
        if opcode & 0x08:
            payload, self._control = bytes(self._control), bytearray()
            return WSMessage(opcode, payload)
        if not self._final:
            return None
        assert self._message_opcode is not None
        kind, self._message_opcode = self._message_opcode, None
        message, self._message = bytes(self._message), bytearray()
        self._decoder.reset()
        return WSMessage(kind, message.decode() if kind == TEXT else message)
