"""A body in chunks (RFC 9112, 7.1): read strictly, and no byte of it kept that is beyond the limit."""

import re

from aphlict.errors import BadRequest, BodyTooLarge
from aphlict.protocol.http import is_field

MAX_LINE = 256  # bytes of the line before a chunk: its size, and extensions, which are ignored
MAX_TRAILERS = 4096  # bytes of the fields behind the last chunk, which are ignored too

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")


class ChunkedParser:
    """Takes the bytes of one body as they come. After an error it must not be used any more."""

    __slots__ = ("_body", "_left", "_limit", "_line", "_trailers")

    def __init__(self, limit: int) -> None:
        """Read a body of at most `limit` bytes."""
        self._limit = limit
        self._body = bytearray()
        self._line = b""  # the part that has come of the line that is being read
        self._left = 0  # bytes of the chunk that is being read, with the line end behind it
        self._trailers: int | None = None  # bytes that trailers may have yet, once the last chunk has come

    def feed(self, data: bytes) -> bytes | None:
        """Take data: what comes behind the body once that is whole, else None.

        Raises BodyTooLarge when a chunk is announced that passes the limit, BadRequest for what is no chunk.
        """
        start = 0
        while start < len(data):
            if self._left:
                start = self._read_chunk(data, start)
                continue
            end = data.find(b"\n", start) + 1
            line = self._read_line(data[start : end or len(data)])
            if line is None:
                return None
            start = end
            if self._trailers is None:
                self._begin_chunk(line)
            elif not line:
                return data[start:]
            else:
                self._skip_trailer(line)
        return None

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return len(self._body) + len(self._line)

    def body(self) -> bytes:
        """What the chunks held."""
        return bytes(self._body)

    def _read_line(self, piece: bytes) -> bytes | None:
        """The line that ends with this piece, without its end; None where the piece does not end it."""
        self._line = line = self._line + piece
        limit = MAX_LINE if self._trailers is None else self._trailers
        if len(line) > limit:
            raise BadRequest(f"a line between or behind the chunks of the body is longer than {limit} bytes")
        if not line.endswith(b"\n"):
            if b"\r" in line[:-1]:
                raise BadRequest("a line between or behind the chunks of the body has a CR without LF")
            return None
        if not line.endswith(b"\r\n"):
            raise BadRequest("a line between or behind the chunks of the body does not end with CR LF")
        self._line = b""
        return line[:-2]

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise BadRequest("a chunk of the body does not begin with its size in hexadecimal digits")
        size = int(match[1], 16)
        if size > self._limit - len(self._body):
            raise BodyTooLarge(f"the body is larger than {self._limit} bytes")
        if size:
            self._left = size + 2
        else:
            self._trailers = MAX_TRAILERS

    def _read_chunk(self, data: bytes, start: int) -> int:
        """Take a part of a chunk, or of the line end behind it; where the rest of data starts."""
        size = min(self._left - 2, len(data) - start)
        if size > 0:
            self._body += data[start : start + size]
            self._left -= size
            return start + size
        if data[start] != b"\n\r"[self._left - 1]:
            raise BadRequest("a chunk of the body is not as long as it says")
        self._left -= 1
        return start + 1

    def _skip_trailer(self, line: bytes) -> None:
        """Ignore a field, as nobody has asked for it (RFC 9110, 6.5.1)."""
        if not is_field(line):
            raise BadRequest("a line behind the chunks of the body is no header line")
        assert self._trailers is not None
        self._trailers -= len(line) + 2
