"""Clients of a simulated cluster: they roam, lose what was on the way to them, and remember what they received."""

import json
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode

from aphlict.core.budget import Holder
from aphlict.core.message import Delivery
from aphlict.core.metrics import Cause
from aphlict.errors import AphlictError, HistoryEvicted
from aphlict.protocol.http import Request
from aphlict.protocol.websocket import WSMessage
from aphlict.server.client_port import ClientHandler, WebSocketSession
from aphlict.server.write_buffer import CLOSED_BUFFER
from tests.support.mesh import Mesh
from tests.support.network import Server
from tests.support.simulation import Process

MAX_NAMES = 14  # that a client names beside its tokens, as aphlict.js


class Transport(Enum):
    """How a client is connected."""

    WEBSOCKET = "websocket"
    EVENTS = "events"
    POLL = "poll"


class Memory(Enum):
    """From what a client resumes."""

    TOKEN = "token"
    NAMES = "names"
    BOTH = "both"
    TWO_TOKENS = "two tokens"


class ClientConnection:
    """In place of `HTTPConnection` and `WebSocket`: what the server sends is kept until the client reads it."""

    limit_key = "127.0.0.1"
    number = 1
    address = "127.0.0.1"
    write_buffer = CLOSED_BUFFER  # the client reads everything

    def __init__(self, process: Process, server: Server) -> None:
        self.process = process
        self.port = SimpleNamespace(
            server=server.context,
            keys=None,
            origins=SimpleNamespace(check_page=lambda _headers: None, cors_fields=lambda _headers: {}),
        )
        self.sent: list[bytes] = []
        self.is_open = True
        self.is_cut = False  # by the server
        self.session: Any = None
        self._responder: Any = None
        self._server = server
        server.open[self] = None
        process.on_exit.append(self._on_exit)

    @property
    def holder(self) -> Holder:
        """Part of the hub's Receiver."""
        return self

    def deliver(self, delivery: Delivery, /) -> None:
        """Part of the hub's Receiver."""
        self.send(delivery.ws_frame)

    def deliver_all(self, deliveries: Iterator[Delivery], /) -> None:
        """Part of the hub's Receiver."""
        self.send_all(each.ws_frame for each in deliveries)

    def send(self, data: bytes, /) -> None:
        """As in the server."""
        if self.is_open:
            self.sent.append(data)

    def send_all(self, parts: Iterator[bytes], /) -> None:
        """As in the server."""
        try:
            for part in parts:
                self.send(part)
        except HistoryEvicted:
            self.close(1013)

    def charge(self, cost: int) -> None:
        """As in the server."""

    def set_ack_timeout(self, seconds: float) -> None:
        """As in the server."""

    def count(self, error: AphlictError) -> None:
        """As in the server."""
        raise error

    def reject(self, error: AphlictError, *_: object) -> None:
        """As in the server."""
        raise error

    def stream(self, responder: Any) -> None:
        """As in the server."""
        self._responder = responder

    def respond(self, response: bytes, *, keep_alive: bool) -> None:
        """As in the server."""
        self._responder = None
        self.send(response)
        self._end()

    def close(self, _code: int = 1000, reason: str = "", *, cause: Cause = "error") -> None:
        """The server closes it: the client receives what was sent before."""
        responder, self._responder = self._responder, None
        if responder is not None:
            self.send(responder.final_bytes(cause))
        self.is_cut = True
        self._leave(responder, reason)

    def close_over_limit(self, limit: str, /) -> None:
        """As in the server."""
        self.close()

    def _on_exit(self) -> None:
        self.is_cut = True
        self._end()

    def disconnect(self) -> None:
        """The client is gone."""
        if self.is_open and self.process.is_alive:
            responder, self._responder = self._responder, None
            self.process.call_soon(self._leave, responder, "")

    def _leave(self, responder: Any, reason: str) -> None:
        if not self.is_open:
            return
        self._end()
        if responder is not None:
            responder.on_close(reason, "error")
        if self.session is not None:
            self.session.on_close(cast("Any", self), reason, "error")
            self.session = None

    def _end(self) -> None:
        self.is_open = False
        self._server.open.pop(self, None)


class Received(NamedTuple):
    """What a client reads: a message, by its uniqueID; a token; both; or that messages may be missing."""

    unique_id: str | None = None
    token: str | None = None
    is_gap: bool = False


class Reader:
    """A client. `on_received` is called with everything that it reads."""

    def __init__(
        self,
        mesh: Mesh,
        transport: Transport,
        memory: Memory,
        channels: Sequence[str],
        on_received: Callable[[Received], None],
    ) -> None:
        self.transport = transport
        self.memory = memory
        self.channels = tuple(channels)
        self.node = ""  # to which it is or was connected
        self._mesh = mesh
        self._on_received = on_received
        self._connection: ClientConnection | None = None
        self._tokens: list[str] = []  # the latest last
        self._names: list[str] = []  # of messages, the latest last
        self._named: list[str] = []  # those since the last token
        self._is_resumed = False  # what is received on this connection counts
        self._unconfirmed: list[Received] = []
        self.place = 0

    def __repr__(self) -> str:
        return f"{self.transport.value} reader of {self.channels} with {self.memory.value}"

    @property
    def is_connected(self) -> bool:
        """Whether it may receive more without another request, or has something to read."""
        connection = self._connection
        return connection is not None and (connection.is_open or bool(connection.sent))

    @property
    def after(self) -> list[str]:
        """What it resumes after."""
        match self.memory:
            case Memory.TOKEN:
                return self._tokens[-1:]
            case Memory.NAMES:
                return self._names[-MAX_NAMES:]
            case Memory.BOTH:
                return [*self._named[-MAX_NAMES:], *self._tokens[-1:]]
            case Memory.TWO_TOKENS:
                return [*self._named[-MAX_NAMES:], *self._tokens[-2:]]

    @property
    def unnamed(self) -> list[str]:
        """Messages after its token that it does not name: it has to recognize them when they come again."""
        return [] if self.memory is Memory.NAMES else self._named[:-MAX_NAMES]

    def connect(self, node: str, place: int = 0) -> bool:
        """Connect and resume; return whether the node accepts clients."""
        self.disconnect()
        found = self._mesh.clients(node, place)
        if found is None:
            return False
        process, server, handler = found
        self.node, self.place = node, place
        self._connection = connection = ClientConnection(process, server)
        self._is_resumed = not self.after
        self._unconfirmed.clear()
        if self.transport is Transport.WEBSOCKET:
            process.call(lambda: self._open_websocket(connection, handler))
        else:
            route = "poll" if self.transport is Transport.POLL else "events"
            query = [("channel", name) for name in self.channels]
            query += [("after", name) for name in self.after]
            request = Request("GET", f"/{route}?{urlencode(query)}", 1, {})
            process.call(lambda: handler.on_request(cast("Any", connection), request, b""))
        return True

    def _open_websocket(self, connection: ClientConnection, handler: ClientHandler) -> None:
        websocket = cast("Any", connection)
        connection.session = WebSocketSession(handler, websocket, "default", None)
        self._send("subscribe", list(self.channels))
        if self.after:
            self._send("replay", {"after": self.after})

    def _send(self, command: str, data: object = None) -> None:
        connection = self._connection
        assert connection is not None
        text = json.dumps({"command": command, "data": data, "id": command})
        if connection.session is not None:
            connection.session.on_message(cast("Any", connection), WSMessage(1, text))

    def refresh(self) -> None:
        """Get another token, where the transport allows it."""
        connection = self._connection
        if self.transport is Transport.WEBSOCKET and connection is not None and connection.is_open:
            process = connection.process
            if process.is_alive and not process.is_stopped:
                process.call(lambda: self._send("ping"))

    def read(self, count: int | None = None) -> None:
        """Read the first pieces that the server sent, or all. A poll is answered then."""
        connection = self._connection
        if connection is None:
            return
        end = len(connection.sent) if count is None else count
        pieces, connection.sent = connection.sent[:end], connection.sent[end:]
        for piece in pieces:
            self._note_all(self._parse(piece))
        if len(self._named) > MAX_NAMES - 4:
            self.refresh()
        if self.transport is Transport.POLL and pieces and not connection.sent:
            self._connection = None

    def disconnect(self) -> None:
        """Leave; what was not read is lost."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self._mesh.loop.run_ready()

    def _note_all(self, several: Iterator[Received]) -> None:
        """A WebSocket client keeps what comes before the reply to `replay` until then: that may report a gap."""
        for each in several:
            self._unconfirmed.append(each)
            if self._is_resumed:
                confirmed, self._unconfirmed = self._unconfirmed, []
                for one in sorted(confirmed, key=lambda one: not one.is_gap):
                    self._note(one)

    def _note(self, received: Received) -> None:
        if received.unique_id is not None:
            self._names.append(received.unique_id)
            self._named.append(received.unique_id)
        if received.token is not None:
            self._tokens.append(received.token)
            self._named.clear()
        self._on_received(received)

    def _parse(self, piece: bytes) -> Iterator[Received]:
        if self.transport is Transport.WEBSOCKET:
            yield from self._parse_frame(piece)
        elif self.transport is Transport.POLL:
            yield from self._parse_poll(json.loads(piece.partition(b"\r\n\r\n")[2]))
        elif not piece.startswith(b"HTTP/"):
            for block in piece.decode().split("\n\n"):
                yield from self._parse_event(block)

    def _parse_frame(self, frame: bytes) -> Iterator[Received]:
        size = {126: 4, 127: 10}.get(frame[1], 2)
        fields = json.loads(frame[size:])
        if "subscribers" in fields:
            yield Received(fields["uniqueID"])
            return
        if fields["type"] != "ack":
            return
        self._is_resumed = self._is_resumed or fields["id"] == "replay"
        if self._is_resumed:  # a token that comes before the replay does not cover it
            yield Received(token=fields.get("last"), is_gap=fields.get("recovered") is False)

    def _parse_poll(self, fields: dict[str, Any]) -> Iterator[Received]:
        if not fields["recovered"]:
            yield Received(is_gap=True)
        for message in fields["messages"]:
            yield Received(message["uniqueID"])
        self._is_resumed = True
        yield Received(token=fields["last"])

    def _parse_event(self, block: str) -> Iterator[Received]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        self._is_resumed = True
        if fields.get("event") == "gap":
            yield Received(is_gap=True)
        elif "data" in fields or "id" in fields:
            message = json.loads(fields.get("data", "{}"))
            yield Received(message.get("uniqueID"), fields.get("id"))
