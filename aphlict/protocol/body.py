"""Bodies of requests: of a known size, or in the chunked transfer coding (RFC 9112, 6.2 and 7.1), parsed strictly."""

import re

from aphlict.errors import BadRequest, BodyTooLarge
from aphlict.protocol.http import is_field

MAX_LINE = 256  # bytes of the line before a chunk: its size and extensions, which are ignored
MAX_TRAILERS = 4096  # bytes of the trailer fields, which are ignored too

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")


class SizedParser:
    """Collects a body of a known size from data in any split."""

    __slots__ = ("_data", "_missing")

    def __init__(self, size: int) -> None:
        self._data = bytearray()
        self._missing = size

    def feed(self, data: bytes) -> bytes | None:
        """Take data; once the body is complete return the data after it, before that None."""
        part = data[: self._missing]
        self._data += part
        self._missing -= len(part)
        return None if self._missing else data[len(part) :]

    @property
    def size(self) -> int:
        """Bytes that were received."""
        return len(self._data)

    def body(self) -> bytes:
        """Return the complete body."""
        return bytes(self._data)


class ChunkedParser:
    """Parses one chunked body from data in any split, without keeping a byte beyond the limit. Must not be used after
    an error."""

    __slots__ = ("_body", "_left", "_limit", "_line", "_trailers")

    def __init__(self, limit: int) -> None:
        """Parse a body of at most `limit` bytes."""
        self._limit = limit
        self._body = bytearray()
        self._line = b""  # the received part of an incomplete line
        self._left = 0  # missing bytes of the current chunk, with the CR LF after it
        self._trailers: int | None = None  # bytes that trailers may still have, after the last chunk

    def feed(self, data: bytes) -> bytes | None:
        """Parse data; once the body is complete return the data after it, before that None.

        Raises BodyTooLarge for the size of a chunk that exceeds the limit, BadRequest for a malformed body.
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
        """The memory that the received data takes, in bytes."""
        return len(self._body) + len(self._line)

    def body(self) -> bytes:
        """Return the content of the chunks."""
        return bytes(self._body)

    def _read_line(self, piece: bytes) -> bytes | None:
        """Return the line that ends with this piece, without CR LF; None while it is incomplete."""
        self._line = line = self._line + piece
        limit = MAX_LINE if self._trailers is None else self._trailers
        if len(line) > limit:
            raise BadRequest(f"a line between or after the chunks of the body is longer than {limit} bytes")
        if not line.endswith(b"\n"):
            if b"\r" in line[:-1]:
                raise BadRequest("a line between or after the chunks of the body has a CR without LF")
            return None
        if not line.endswith(b"\r\n"):
            raise BadRequest("a line between or after the chunks of the body does not end with CR LF")
        self._line = b""
        return line[:-2]

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise BadRequest("a chunk of the body does not start with its size in hexadecimal digits")
        size = int(match[1], 16)
        if size > self._limit - len(self._body):
            raise BodyTooLarge(f"the body is larger than {self._limit} bytes")
        if size:
            self._left = size + 2
        else:
            self._trailers = MAX_TRAILERS

    def _read_chunk(self, data: bytes, start: int) -> int:
        """Parse a part of a chunk or of the CR LF after it; return where the rest of data starts."""
        size = min(self._left - 2, len(data) - start)
        if size > 0:
            self._body += data[start : start + size]
            self._left -= size
            return start + size
        if data[start] != b"\n\r"[self._left - 1]:
            raise BadRequest("a chunk of the body does not have the announced size")
        self._left -= 1
        return start + 1

    def _skip_trailer(self, line: bytes) -> None:
        """Ignore a trailer field: the server does not announce support (RFC 9110, 6.5.1)."""
        if not is_field(line):
            raise BadRequest("a trailer line of the body is malformed")
        assert self._trailers is not None
        self._trailers -= len(line) + 2
