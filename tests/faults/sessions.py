"""One connection of a client that resumes: WebSocket, event stream, or polls one after the other. Cheap, by hand."""

import asyncio
import json
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from tests.support.frames import CLOSE, PING, PONG, TEXT, frame, take_frame

MAX_UNCOVERED = 7  # messages since its token after which a WebSocket client asks for another
SUBSCRIBED, RESUMED, REFRESHED, LEFT = 1, 2, 3, 4  # ids of commands
ZERO = bytes(4)  # a masking key that costs nothing


class Reader(Protocol):
    """The client: what it resumes after, and what it does with what a session receives."""

    instance: str
    channels: tuple[str, ...]
    uncovered: list[str]  # names of messages that came after its token

    def on_start(self) -> None: ...
    def on_gap(self) -> None: ...
    def on_recovered(self) -> None: ...
    def on_message(self, message: dict[str, Any]) -> None: ...
    def on_token(self, token: str) -> None: ...
    def on_failure(self, what: str) -> None: ...


class Session(asyncio.Protocol):
    """`ready` is done when what was missed has come, `ended` when the connection is closed: with the reason."""

    def __init__(self, reader: Reader, after: list[str]) -> None:
        loop = asyncio.get_running_loop()
        self.reader = reader
        self.after = after
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[str] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._has_head = False

    @property
    def path(self) -> str:
        """Where the instance is, for all three."""
        return "/ws" if self.reader.instance == "default" else f"/ws/~{quote(self.reader.instance)}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self.ended.done():
            transport.abort()
        else:
            self.send(self.first_request())

    def data_received(self, data: bytes) -> None:
        """Called by asyncio. What comes after the end is not read any more."""
        if not self.ended.done():
            self._data += data
            self.read()

    def connection_lost(self, _error: Exception | None) -> None:
        """Called by asyncio."""
        self.end("connection closed")

    def end(self, reason: str) -> None:
        """Close the connection, without a goodbye."""
        if not self.ended.done():
            self.ended.set_result(reason)
            if self._transport is not None:
                self._transport.abort()

    def be_ready(self) -> None:
        """What was missed has come."""
        if not self.ready.done():
            self.ready.set_result(None)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        assert self._transport is not None
        self._transport.write(data)

    def take_head(self, status: int) -> str | None:
        """Return the head of a response once it is complete; end the session if it has another status."""
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self._data[:end].decode("latin-1")
        found = int(head.split(" ", 2)[1])
        if found != status:
            if found != 503:  # the node stops, or has just started
                self.reader.on_failure(f"{head}\n{self._data[end:].decode()}")
            self.end(f"status {found}")
            return None
        del self._data[: end + 4]
        return head

    @abstractmethod
    def first_request(self) -> bytes:
        """What is sent first."""

    @abstractmethod
    def read(self) -> None:
        """Handle what has been received."""

    def leave(self) -> None:
        """End the session soon, with a token that covers everything that came."""
        self.end("left")

    def query(self, **more: object) -> str:
        """The query of a stream or a poll."""
        return urlencode({"channel": self.reader.channels, **more}, doseq=True)


class WebSocketSession(Session):
    """Commands are sent with the handshake. As `aphlict.js` does, it sorts replayed messages before live ones."""

    _buffer: list[dict[str, Any]] | None = None
    _is_refreshing = False

    def first_request(self) -> bytes:
        """The handshake, `subscribe` and `replay`."""
        upgrade = (
            f"GET {self.path}/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        self._buffer = []
        first = upgrade.encode() + _command("subscribe", self.reader.channels, SUBSCRIBED)
        return first + _command("replay", {"after": self.after}, RESUMED) if self.after else first

    def read(self) -> None:
        """Handle frames."""
        if not self._has_head:
            self._has_head = self.take_head(101) is not None
        while self._has_head and not self.ended.done():
            found = take_frame(self._data)
            if found is None:
                return
            opcode, payload = found
            if opcode == TEXT:
                self._on_frame(json.loads(payload))
            elif opcode == PING:
                self.send(frame(payload, PONG, key=ZERO))
            elif opcode == CLOSE:
                self.end(f"close {int.from_bytes(payload[:2], 'big')}")

    def leave(self) -> None:
        """Ask for a last token."""
        if self._transport is None:  # it has not connected yet
            self.end("left")
        else:
            self.send(_command("ping", None, LEFT))

    def _on_frame(self, content: dict[str, Any]) -> None:
        if "subscribers" in content:
            if self._buffer is None:
                self.reader.on_message(content)
                self._refresh()
            else:
                self._buffer.append(content)
        elif content["type"] == "ack":
            self._on_ack(content)
        elif content["type"] == "error":
            self.reader.on_failure(json.dumps(content))

    def _on_ack(self, ack: dict[str, Any]) -> None:
        number = ack["id"]
        if number == RESUMED:
            self._on_resumed(ack)
        elif number == SUBSCRIBED and not self.after:
            self._buffer = None
            self.reader.on_start()
        if self._buffer is None:
            if "last" in ack:
                self.reader.on_token(ack["last"])
            self.be_ready()
        if number == REFRESHED:
            self._is_refreshing = False
        elif number == LEFT:
            self.end("left")

    def _on_resumed(self, ack: dict[str, Any]) -> None:
        messages, self._buffer = self._buffer or [], None
        live = len(messages) - ack["count"]
        if not ack["recovered"]:
            self.reader.on_gap()
        for each in (*messages[live:], *messages[:live]):
            self.reader.on_message(each)
        if ack["recovered"]:
            self.reader.on_recovered()

    def _refresh(self) -> None:
        if len(self.reader.uncovered) >= MAX_UNCOVERED and not self._is_refreshing:
            self._is_refreshing = True
            self.send(_command("ping", None, REFRESHED))


class EventStreamSession(Session):
    """As an EventSource does, it resumes after the last `id` of a complete block."""

    _has_gap = False

    def first_request(self) -> bytes:
        """The request; the last of `after` is in a header."""
        resume = f"Last-Event-ID: {self.after[-1]}\r\n" if self.after else ""
        return f"GET {self.path}/events?{self.query()} HTTP/1.1\r\nHost: localhost\r\n{resume}\r\n".encode()

    def read(self) -> None:
        """Handle complete blocks."""
        if not self._has_head:
            self._has_head = self.take_head(200) is not None
        if self._has_head:
            *blocks, rest = self._data.split(b"\n\n")
            self._data = bytearray(rest)
            for block in blocks:
                self._on_block(block.decode().split("\n"))

    def _on_block(self, lines: Iterable[str]) -> None:
        fields = {name: value.removeprefix(" ") for name, _, value in (line.partition(":") for line in lines)}
        if fields.get("event") == "gap":
            self._has_gap = True
            self.reader.on_gap()
        elif "data" in fields:
            self.reader.on_message(json.loads(fields["data"]))
        elif "id" in fields and not self.ready.done():
            self._on_first_marker()
        if "id" in fields:
            self.reader.on_token(fields["id"])

    def _on_first_marker(self) -> None:
        if not self.after:
            self.reader.on_start()
        elif not self._has_gap:
            self.reader.on_recovered()
        self.be_ready()


class PollSession(Session):
    """One poll after the other on one connection."""

    _length = -1  # of the body that is being received
    _is_leaving = False
    _wait = 0.0

    def first_request(self) -> bytes:
        """A poll."""
        query = self.query(wait=self._wait, after=self.after)
        self._wait = 1.0
        return f"GET {self.path}/poll?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    def leave(self) -> None:
        """Wait for the response."""
        self._is_leaving = True

    def read(self) -> None:
        """Handle a complete response."""
        if self._length < 0:
            head = self.take_head(200)
            if head is None:
                return
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
            self._length = int(fields["content-length"])
        if len(self._data) >= self._length:
            body = self._data[: self._length]
            del self._data[: self._length]
            self._length = -1
            self._on_response(json.loads(body))

    def _on_response(self, content: dict[str, Any]) -> None:
        """Without `last`, the request has to be repeated: the messages come again."""
        if content["last"] is None:
            self.end("no last")
            return
        if not self.after:
            self.reader.on_start()
        elif not content["recovered"]:
            self.reader.on_gap()
        for each in content["messages"]:
            self.reader.on_message(each)
        if self.after and content["recovered"]:
            self.reader.on_recovered()
        self.reader.on_token(content["last"])
        self.be_ready()
        self.after = [content["last"]]
        if self._is_leaving:
            self.end("left")
        else:
            self.send(self.first_request())


def _command(name: str, data: object, number: int) -> bytes:
    return frame(json.dumps({"command": name, "data": data, "id": number}).encode(), key=ZERO)
