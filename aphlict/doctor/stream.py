"""A blocking connection with deadlines, and the HTTP answers that are read from it."""

import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

import msgspec

CHUNK = 16 * 1024
LONGEST_LINE = 16 * 1024
LONGEST_BODY = 1024 * 1024


class Ended(OSError):
    """The other side closed the connection."""


class NotHttp(OSError):
    """What came is not an HTTP answer; `data` is its beginning."""

    def __init__(self, data: bytes) -> None:
        super().__init__(f"no HTTP answer: {data[:40]!r}")
        self.data = data


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; the names in `headers` are lower-case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes = b""

    @cached_property
    def json(self) -> Any:
        """The body as JSON, None where it is none."""
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            return None

    @property
    def error(self) -> str | None:
        """The sentence of an answer that Aphlict itself made."""
        value = self.json.get("error") if isinstance(self.json, dict) else None
        return value if isinstance(value, str) else None

    @property
    def date(self) -> float | None:
        """The time of whoever answered, in seconds since 1970."""
        try:
            return parsedate_to_datetime(self.headers["date"]).timestamp()
        except (KeyError, ValueError):
            return None


class Stream:
    """Reads from a connected socket. All methods raise OSError: TimeoutError past the deadline, Ended."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self.socket = sock
        self._buffer = b""
        self.set_timeout(timeout)

    def set_timeout(self, seconds: float) -> None:
        """Whatever is not done by then fails."""
        self._deadline = time.monotonic() + seconds

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.socket.settimeout(self._left())
        self.socket.sendall(data)

    def take(self, count: int) -> bytes:
        """Read exactly so many bytes; none is lost where it cannot."""
        while len(self._buffer) < count:
            self._fill()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def take_line(self) -> bytes:
        """Read a line, without its end."""
        return self.take_until(b"\n", LONGEST_LINE).rstrip(b"\r")

    def take_until(self, end: bytes, limit: int) -> bytes:
        """Read up to the first place where `end` stands; what is longer than `limit` is no answer."""
        while end not in self._buffer:
            if len(self._buffer) > limit:
                raise NotHttp(self._buffer)
            self._fill()
        taken, _, self._buffer = self._buffer.partition(end)
        return taken

    def take_rest(self) -> bytes:
        """Read until the other side has no more to say."""
        with suppress(Ended, TimeoutError):
            while len(self._buffer) < LONGEST_BODY:
                self._fill()
        rest, self._buffer = self._buffer, b""
        return rest

    def _fill(self) -> None:
        self.socket.settimeout(self._left())
        try:
            data = self.socket.recv(CHUNK)
        except ssl.SSLEOFError as error:
            raise Ended("it closed the connection") from error
        if not data:
            raise Ended("it closed the connection")
        self._buffer += data

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        return left

    def take_head(self) -> Answer:
        """Read the head of an answer."""
        line = self._first_line()
        _, _, rest = line.partition(" ")
        status, _, reason = rest.partition(" ")
        headers: dict[str, str] = {}
        while field := self.take_line():
            name, _, value = field.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return Answer(int(status), reason, headers)

    def _first_line(self) -> str:
        while len(self._buffer) < 5:
            self._fill()
        line = self.take_line() if self._buffer.startswith(b"HTTP/") else self._buffer
        text = line.decode("latin-1")
        if not text.startswith("HTTP/") or not text[9:12].isdigit():
            raise NotHttp(line)
        return text

    def take_answer(self) -> Answer:
        """Read a whole answer: after it the connection is not used any more."""
        return self.finish(self.take_head())

    def finish(self, head: Answer) -> Answer:
        """Read the body that belongs to a head."""
        if "content-length" in head.headers:
            body = self.take(min(_number(head.headers["content-length"], 10), LONGEST_BODY))
        elif "chunked" in head.headers.get("transfer-encoding", ""):
            body = self._take_chunks()
        else:
            body = self.take_rest()
        return Answer(head.status, head.reason, head.headers, body)

    def _take_chunks(self) -> bytes:
        body = b""
        while len(body) < LONGEST_BODY:
            size = _number(self.take_line().partition(b";")[0].decode("latin-1"), 16)
            if not size:
                break
            body += self.take(min(size, LONGEST_BODY))
            self.take_line()
        return body


def _number(text: str, base: int) -> int:
    try:
        return max(0, int(text, base))
    except ValueError as error:
        raise NotHttp(text.encode("latin-1")) from error
