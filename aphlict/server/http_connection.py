"""A connection that bears plain HTTP requests, one after the other: what publishers use."""

import socket
from functools import lru_cache

from aphlict.config.settings import Limits
from aphlict.errors import AphlictError, BodyTooLarge, BufferFull
from aphlict.protocol import http
from aphlict.protocol.chunked import ChunkedParser
from aphlict.protocol.http import Request
from aphlict.server.connection import Application, Connection, Context
from aphlict.server.poller import GONE, READ, WRITE
from aphlict.server.sending import State

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
KNOWN_HEADS = 64  # of the last publishers, whose requests begin alike but for the length of the body

_parse_head = lru_cache(KNOWN_HEADS)(http.parse_head)


class RequestApplication(Application):
    """What such a connection serves. `on_request` is never called."""

    @property
    def body_limit(self) -> int:
        """Bytes that a body may have."""
        raise NotImplementedError

    def on_head(self, connection: "RequestConnection", request: Request, /) -> None:
        """The head of a request came. Raises an AphlictError to refuse it before anything of its body is read."""
        raise NotImplementedError

    def on_whole_request(self, connection: "RequestConnection", request: Request, body: bytes, /) -> None:
        """A whole request came; it must be answered with `answer`, now or later."""
        raise NotImplementedError


class RequestConnection(Connection):
    """Reads whole requests, and answers them in turn, now or later.

    A size is checked before a byte of a body is kept.

    The application of its context must be a RequestApplication.
    """

    __slots__ = ("_asked", "_begun", "_body", "_chunks", "_held", "_last", "_missing", "_request")

    watched_in_pause = 0  # a publisher may send no more, and wait for its answer

    def __init__(self, sock: socket.socket, address: str, context: Context) -> None:
        super().__init__(sock, address, context)
        self._request: Request | None = None  # of which the body is being read
        self._begun: float | None = None  # when the first byte of the request came
        self._body = bytearray()  # what has come of it, where that is not all
        self._missing = 0  # bytes of the body
        self._chunks: ChunkedParser | None = None  # where the body comes in chunks
        self._last = False  # the request that is being read is the last one
        self._asked = False  # a request has not been answered yet: reading pauses until it has been
        self._held = b""  # what came behind it

    def _on_data(self, data: bytes) -> None:
        super()._on_data(data)
        if self._request is not None or self._held:
            self._count_incoming()

    def _on_head(self, data: bytes) -> None:
        """Read what has come: perhaps a part of a request, perhaps several."""
        while data and self.state is State.HEAD:
            data = self._read_head(data) if self._request is None else self._read_body(data)

    def _read_head(self, data: bytes) -> bytes:
        """Read the head of a request; the rest of data."""
        if not self._head:
            self._begun = self._heard
        self._head = data = self._head + data
        found = http.parse_request(data, self.context.limits.request_head, _parse_head)
        if found is None:
            return b""
        request, size = found
        self._head = b""
        try:
            self._application().on_head(self, request)
            self._begin_body(request, request.body_size())
        except AphlictError as error:
            self.refuse(error, request)
            return b""
        rest = data[size:]
        return rest or self._read_body(b"")

    def _begin_body(self, request: Request, length: int | None) -> None:
        limit = self._application().body_limit
        if length is None:
            self._chunks = ChunkedParser(limit)
        elif length > limit:
            raise BodyTooLarge(f"the body is larger than {limit} bytes")
        if length != 0 and request.minor and request.headers.get("expect", "").lower() == "100-continue":
            self.send(CONTINUE)
        self._request, self._missing = request, length or 0

    def _read_body(self, data: bytes) -> bytes:
        """Take what belongs to the body, and hand the request on once it is whole; the rest of data."""
        if self._chunks is not None:
            return self._read_chunks(self._chunks, data)
        part = data[: self._missing]
        self._missing -= len(part)
        if self._missing or self._body:
            self._body += part
        if self._missing:
            return b""
        body, self._body = bytes(self._body) or part, bytearray()
        return self._on_body(body, data[len(part) :])

    def _read_chunks(self, chunks: ChunkedParser, data: bytes) -> bytes:
        rest = chunks.feed(data)
        if rest is None:
            return b""
        self._chunks = None
        return self._on_body(chunks.body(), rest)

    def _on_body(self, body: bytes, rest: bytes) -> bytes:
        """Hand the request on; the rest of data, unless its answer has to be waited for."""
        request, self._request, self._begun = self._request, None, None
        assert request is not None
        self._held, self._asked = rest, True
        self._application().on_whole_request(self, request, body)
        if self._asked and self.state is State.HEAD:  # else it was closed meanwhile, to make room for others
            self._paused = True
            self._watch(0)  # nothing more is read before the answer
            return b""
        return self._take_held()

    def _incoming(self) -> int:
        chunks = 0 if self._chunks is None else self._chunks.size
        return super()._incoming() + len(self._body) + chunks + len(self._held)

    def _drop_incoming(self) -> None:
        self._body, self._chunks, self._held = bytearray(), None, b""
        super()._drop_incoming()

    def _take_held(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def charge(self, _cost: int) -> None:
        """Charge nothing: `limits.commands` is for browsers."""

    def came_to(self) -> str:
        """The address of ours that it came to; none where it is gone already."""
        try:
            return str(self._socket.getsockname()[0])
        except OSError:
            return ""

    def _application(self) -> RequestApplication:
        application = self.context.application
        assert isinstance(application, RequestApplication)
        return application

    def answer(self, answer: bytes, *, keep: bool) -> None:
        """Send the answer to a request, once; without `keep` the connection ends after it."""
        self._asked = False
        if self._paused:
            self._paused = False
            self._watch(READ if self._waiting is None else READ | WRITE)
            self._answer(answer, keep=keep)
            self._on_data(self._take_held())
        else:
            self._answer(answer, keep=keep)

    def _answer(self, answer: bytes, *, keep: bool) -> None:
        if keep and not self._last:
            self.send(answer)
        else:
            self._finish(answer)

    def give_up(self, limit: str, /) -> None:
        """Close, since this connection holds more than it may: with 503 where a request is arriving, and abruptly
        where an answer is dropped, as the next one would be taken for it."""
        if self.state is not State.HEAD:
            super().give_up(limit)
            return
        self.context.hits.add(limit, self.address)
        if self._begun is None or self._waiting is not None:
            self.abort(f"it passed {limit}")
        else:
            self.refuse(
                BufferFull("there is no memory for this request now: others arrive, or wait, beside it")
            )

    def on_events(self, events: int, /) -> None:
        """Read and write what can be; who goes away before the answer is not waited for."""
        if self._paused:
            if events & GONE:
                self.abort("it went away before the answer")
        else:
            super().on_events(events)

    def abort(self, why: str) -> None:
        """End at once."""
        self._paused = False
        super().abort(why)

    def close(self, _code: int, _reason: str = "", why: str = "") -> None:
        """End, after the request that has begun to arrive."""
        if self._begun is None and not self._asked:
            self.abort(why)
        self._last = True

    def _patience(self, limits: Limits) -> float:
        """Seconds between two looks: no request may have begun and taken too long since."""
        return min(limits.handshake, limits.body_time, limits.idle)

    def on_deadline(self, now: float, /) -> float | None:
        """Give up on a request that takes too long to come, and on who asks nothing."""
        if self.state is not State.HEAD:
            return self._check_progress(now)
        begun, limits = self._begun, self.context.limits
        end = self._heard + limits.idle if begun is None else begun + limits.body_time
        if now < end:
            return end if begun is not None else min(end, now + self._patience(limits))
        if begun is None:
            self.context.hits.count("limits.idle")
            self.abort("it was idle")
        else:
            self.context.hits.add("limits.body.time", self.address)
            self.abort("its request took too long")
        return None
