"""A browser's connection: a WebSocket, or requests whose answers come when there is something to say."""

import socket
from typing import Protocol

from aphlict.config.settings import BYTES_PER_COMMAND
from aphlict.server.connection import Connection, Context
from aphlict.server.sending import State


class Stream(Protocol):
    """What makes the answer to a request while the connection is in `State.STREAM`."""

    def last_words(self) -> bytes:
        """The connection is about to be closed: what to send before that."""

    def on_close(self, reason: str, /) -> None:
        """The connection has been closed, or was lost. `reason` is a part of a sentence."""


class BrowserConnection(Connection):
    """Serves a WebSocket, or event streams and polls, without more than this object for each."""

    __slots__ = ("_answered", "_since", "_stream")

    def __init__(self, sock: socket.socket, address: str, context: Context) -> None:
        super().__init__(sock, address, context)
        self._since = context.deadlines.now  # when a request was first awaited
        self._stream: Stream | None = None
        self._answered = False  # a request, so that it waits for another one

    def stream(self, stream: Stream) -> None:
        """Let the stream make the answer: with `send` until it is closed, or with one `answer`."""
        self.state = State.STREAM
        self._stream = stream
        self._head = self._head[:1]

    def give_up_after(self, seconds: float) -> None:
        """Lose the connection once what was sent has not been acknowledged for so long (tcp(7)).

        A browser says nothing while it listens: whether it is still there, only its system tells. One that is gone
        already is no error.
        """
        if self.state is State.STREAM and self._socket.family in (socket.AF_INET, socket.AF_INET6):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))

    def answer(self, data: bytes, *, keep: bool) -> None:
        """Send a whole answer, and end; with `keep` another request may come instead.

        Not one that came before its time, though: those are not kept, and so the connection ends.
        """
        self._stream = None
        if not keep or self._head or self._waiting is not None:
            self._finish(data)
            return
        self.state = State.HEAD
        self._since = self.context.deadlines.now
        self._answered = True
        self.send(data)
        if self.state is State.HEAD:  # else it is gone, and has left by its door
            self.forget_browser()

    def _on_data(self, data: bytes) -> None:
        if self.state is State.STREAM:
            self._head = data[:1]
            self.charge(1 + len(data) // BYTES_PER_COMMAND)
        else:
            super()._on_data(data)

    def close(self, code: int, reason: str = "", why: str = "") -> None:
        """Send what the stream has to say, or a close frame, and end."""
        stream, self._stream = self._stream, None
        if stream is None:
            super().close(code, reason, why)
        else:
            self._finish(stream.last_words())
            stream.on_close(why or reason)

    def abort(self, why: str) -> None:
        """End at once."""
        stream, self._stream = self._stream, None
        super().abort(why)
        if stream is not None:
            stream.on_close(why)

    def _check_progress(self, now: float) -> float | None:
        """Give up on a request that takes too long; what waits for messages has deadlines of its own."""
        limit = self.context.limits.handshake
        if self.state is State.STREAM:
            return now + limit if self._waiting is None else self._check_stall(self._waiting, now)
        if self.state is State.HEAD and now < self._since + limit:
            return self._since + limit
        if self.state is State.HEAD and self._waiting is not None:  # the answer before is still on its way
            return self._check_stall(self._waiting, now)
        if self.state is State.HEAD and self._answered and not self._head:
            self.context.hits.count("limits.idle")
            self.abort("it was idle")
            return None
        return super()._check_progress(now)
