"""Frames of RFC 6455: those of browsers are read, ours are made."""

import codecs
from collections.abc import Iterator
from typing import NamedTuple

from tornado.util import _websocket_mask as mask  # compiled; the pure Python one where it cannot be

from aphlict.errors import FrameTooLarge, InvalidUTF8, ProtocolError

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

FINAL, MASKED, LENGTH, RESERVED = 0x80, 0x80, 0x7F, 0x70
CONTROL_LIMIT = 125
OPCODES = {CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG}

NORMAL, GOING_AWAY, NO_STATUS, TRY_AGAIN_LATER = 1000, 1001, 1005, 1013
# RFC 6455, 7.4, and the IANA registry: what may travel in a close frame.
CLOSE_CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}

PARSER_BYTES = 1500  # bytes of a FrameParser itself

_UTF8 = codecs.getincrementaldecoder("utf-8")


class WSMessage(NamedTuple):
    """One whole message or control frame: `data` is str for TEXT, bytes for everything else."""

    opcode: int
    data: str | bytes


class Close(NamedTuple):
    """What a close frame says."""

    code: int
    reason: str


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """Make a whole frame from the server: final, not masked."""
    size = len(payload)
    first = FINAL | opcode
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def encode_close(code: int, reason: str = "") -> bytes:
    """Make a close frame; the reason is cut to what a control frame holds."""
    text = reason.encode()[: CONTROL_LIMIT - 2].decode(errors="ignore").encode()
    return encode_frame(CLOSE, code.to_bytes(2, "big") + text)


def decode_close(payload: bytes) -> Close:
    """Read a close frame's payload; raises ProtocolError or InvalidUTF8 (RFC 6455, 5.5.1)."""
    if not payload:
        return Close(NO_STATUS, "")
    if len(payload) == 1:
        raise ProtocolError("a close frame has a status code of two bytes or none")
    code = int.from_bytes(payload[:2], "big")
    if code not in CLOSE_CODES:
        raise ProtocolError(f"{code} is no status code that a close frame may carry")
    return Close(code, decode_text(payload[2:]))


def decode_text(payload: bytes) -> str:
    """Decode UTF-8; raises InvalidUTF8."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise InvalidUTF8("text that is not UTF-8") from error


def decode_short_text(data: bytes, limit: int) -> WSMessage | None:
    """Read data that is exactly one short, whole, masked text frame: what browsers send nearly always.

    None where it is anything else: a FrameParser must read it then. Raises InvalidUTF8.
    """
    size = len(data) - 6
    if size < 0 or data[0] != FINAL | TEXT or data[1] != MASKED | size or size > limit:
        return None  # data[1] == MASKED | size holds for sizes below 126 only: the longer ones differ
    if size >= 126:
        return None
    return WSMessage(TEXT, decode_text(mask(data[2:6], data[6:])))


class FrameParser:
    """Reads the frames of one browser, in any split; keeps only what is not complete yet.

    `limit`: bytes that a message, its fragments together, may have. `since`: when that began which is not complete,
    on the clock of `now`.
    """

    __slots__ = (
        "_buffer",
        "_control",
        "_decoder",
        "_final",
        "_frame_count",
        "_kind",
        "_left",
        "_limit",
        "_mask",
        "_message",
        "_opcode",
        "since",
    )

    def __init__(self, limit: int, now: float = 0.0) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._opcode: int | None = None  # of the frame that is being read
        self._final = False
        self._left = 0  # payload bytes of the frame that have not come yet
        self._mask = b""
        self._control = bytearray()
        self._kind: int | None = None  # TEXT or BINARY while a message is being put together
        self._message = bytearray()
        self._decoder = _UTF8()
        self._frame_count = 0  # frames that `begun` has not told of
        self.since = now

    @property
    def is_idle(self) -> bool:
        """Whether nothing is half read: this reader may be forgotten."""
        return self._opcode is None and self._kind is None and not self._buffer

    @property
    def size(self) -> int:
        """Bytes of memory, with what is not complete."""
        return PARSER_BYTES + len(self._buffer) + len(self._message) + len(self._control)

    def take_frame_count(self) -> int:
        """How many frames have begun since this was asked last."""
        begun, self._frame_count = self._frame_count, 0
        return begun

    def keep(self, data: bytes) -> None:
        """Take data that `feed` reads when it is called again."""
        self._buffer += data

    def feed(self, data: bytes, now: float = 0.0) -> Iterator[WSMessage]:
        """Yield what is complete now; raises ProtocolError where RFC 6455 is broken, after what came before."""
        self._buffer += data
        while self._read_header() and self._read_payload():
            received = self._finish_frame()
            if self._kind is None:  # not a control frame between the fragments of a message
                self.since = now
            if received is not None:
                yield received

    def _read_header(self) -> bool:
        """Read the header of a frame (5.2); False while it is not all there. True also when it was read before."""
        if self._opcode is not None:
            return True
        buffer = self._buffer
        if len(buffer) < 2:
            self._check_first_byte()
            return False
        self._check_first_byte()
        size = buffer[1] & LENGTH
        if not buffer[1] & MASKED:
            raise ProtocolError("a frame from a browser must be masked")
        if buffer[0] & 0x08 and size > CONTROL_LIMIT:
            raise ProtocolError("a control frame holds 125 bytes at most")
        extra = {126: 2, 127: 8}.get(size, 0)
        if len(buffer) < 6 + extra:
            return False
        if extra:
            size = int.from_bytes(buffer[2 : 2 + extra], "big")
            if size >> 63:
                raise ProtocolError("a frame's length has its first bit clear")
        self._begin_frame(buffer[0], size, bytes(buffer[2 + extra : 6 + extra]))
        del buffer[: 6 + extra]
        return True

    def _check_first_byte(self) -> None:
        if not self._buffer:
            return
        first = self._buffer[0]
        if first & RESERVED:
            raise ProtocolError("a reserved bit is set, and no extension was agreed on")
        opcode = first & 0x0F
        if opcode not in OPCODES:
            raise ProtocolError(f"{opcode} is no opcode")
        if opcode & 0x08:
            if not first & FINAL:
                raise ProtocolError("a control frame cannot be fragmented")
        elif (opcode == CONTINUATION) != (self._kind is not None):
            raise ProtocolError("a continuation without a beginning, or a beginning inside a message")

    def _begin_frame(self, first: int, size: int, key: bytes) -> None:
        opcode = first & 0x0F
        self._frame_count += 1
        if not opcode & 0x08:
            if len(self._message) + size > self._limit:
                raise FrameTooLarge(f"a message of more than {self._limit} bytes")
            if opcode != CONTINUATION:
                self._kind = opcode
        self._opcode, self._final, self._left, self._mask = opcode, bool(first & FINAL), size, key

    def _read_payload(self) -> bool:
        """Take what has come of the payload, unmask and check it; False while the frame is not all there."""
        assert self._opcode is not None
        chunk = bytes(self._buffer[: self._left])
        del self._buffer[: len(chunk)]
        self._left -= len(chunk)
        plain = mask(self._mask, chunk)
        if self._opcode & 0x08:
            self._control += plain
        else:
            if self._kind == TEXT:
                self._check_text(plain)
            self._message += plain
        turn = len(chunk) % 4
        self._mask = self._mask[turn:] + self._mask[:turn]
        return not self._left

    def _check_text(self, plain: bytes) -> None:
        """Refuse bad UTF-8 at the first byte that shows it, even in the middle of a frame."""
        try:
            self._decoder.decode(plain, final=self._final and not self._left)
        except UnicodeDecodeError as error:
            raise InvalidUTF8("text that is not UTF-8") from error

    def _finish_frame(self) -> WSMessage | None:
        opcode, self._opcode = self._opcode, None
        assert opcode is not None
        if opcode & 0x08:
            payload, self._control = bytes(self._control), bytearray()
            return WSMessage(opcode, payload)
        if not self._final:
            return None
        assert self._kind is not None
        kind, self._kind = self._kind, None
        message, self._message = bytes(self._message), bytearray()
        self._decoder.reset()
        return WSMessage(kind, message.decode() if kind == TEXT else message)
