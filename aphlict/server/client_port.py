"""The client ports: routes, WebSocket sessions, event streams and polls, health check, and the script."""

import gzip
import hashlib
import logging
import re
from collections.abc import Callable
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import ClassVar

from msgspec.json import encode

from aphlict import log_events
from aphlict.config.settings import (
    CHANNELS_PER_COMMAND,
    QUERY_CHANNELS_PER_COMMAND,
    SUBSCRIPTIONS_PER_COMMAND,
)
from aphlict.core.hub import Hub, Recovery
from aphlict.core.message import check_name
from aphlict.core.metrics import Cause, Transport
from aphlict.errors import (
    AphlictError,
    BadRequest,
    CommandError,
    MethodNotAllowed,
    NameTooLong,
    SubscriptionsFull,
    TokenMissing,
    UnexpectedBody,
    UpgradeRequired,
)
from aphlict.protocol import commands
from aphlict.protocol.commands import Auth, Command, Id, Ping, Replay, Subscribe, Unsubscribe
from aphlict.protocol.http import JSON, PRIVATE, Request, instance_from_path
from aphlict.protocol.websocket import WSMessage
from aphlict.server.auth import GrantTimer, client_of, verify_token
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.long_poll import LongPoll
from aphlict.server.sse import EventEncoder, EventStream
from aphlict.server.subscribe_request import HTTPSubscriber, parse_subscribe_request
from aphlict.server.websocket_connection import WebSocket
from aphlict.tokens.grant import Grant

log = logging.getLogger(__name__)

SUBSCRIBE_METHODS = "GET, OPTIONS"
EXPIRY_FIELD = "Aphlict-Token-Expires"  # seconds for which the token of the request is valid
PREFLIGHT = {
    "Access-Control-Allow-Methods": SUBSCRIBE_METHODS,
    "Access-Control-Allow-Headers": "Authorization, Last-Event-ID, Cache-Control, Content-Type",
    "Access-Control-Max-Age": "86400",
}
SCRIPT_MAX_AGE = 3600  # seconds for which a browser may use the script without asking

_CODING = re.compile(r"([!#$%&'*+.^_`|~0-9a-z-]+)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")


class NodeState(Enum):
    """The state of a node, which load balancers read from `…/status`."""

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    ERROR = "ERROR"


class ClientHandler:
    """Handler of the client ports."""

    max_body_size = 0

    def __init__(self, hub: Hub, clock: Callable[[], float], state: Callable[[], NodeState]) -> None:
        self.hub = hub
        self.now = clock
        self._state = state
        self._event_encoder = EventEncoder(hub)
        self._script = load_script()

    def unix_now(self) -> float:
        """Return the Unix time, by which tokens expire."""
        return self.hub.epoch + self.now()

    def check_head(self, _connection: HTTPConnection, request: Request, /) -> None:
        """Raise UnexpectedBody for any body: one that is not read would be parsed as the next request (RFC 9112,
        11.2)."""
        if request.body_size != 0:
            raise UnexpectedBody("a client port accepts no request body: publish to the admin port")

    def on_request(self, connection: HTTPConnection, request: Request, _body: bytes, /) -> None:
        """Respond to a request, now or later, or upgrade its connection. Raises AphlictError.

        The last segment of the path is the route, whatever prefix a proxy uses.
        """
        if request.wants_websocket():
            self._upgrade(connection, request)
            return
        route = request.path.rpartition("/")[2]
        is_read = request.method in ("GET", "HEAD")
        if route in ("events", "poll"):
            self._on_subscribe(connection, request, is_poll=route == "poll")
        elif route == "status" and is_read:
            state = self._state()
            status = 200 if state is NodeState.RUNNING else 503
            fields = {**JSON, "Cache-Control": "no-store", **PRIVATE}
            connection.respond_to(request, status, fields, encode({"state": state.value}))
        elif route == "aphlict.js" and is_read:
            self._script.respond(connection, request)
        else:
            raise UpgradeRequired("this path serves WebSockets only, and the request is no upgrade")

    def _upgrade(self, connection: HTTPConnection, request: Request) -> None:
        connection.port.origins.check_origin(request.headers)
        instance = check_name(instance_from_path(request.path), "the instance", self.hub.limits.name)
        keys = connection.port.keys
        grant = None
        if keys is not None and (token := request.token()):
            grant = verify_token(connection, keys, token, instance, self.unix_now())
        connection.upgrade(request, lambda websocket: WebSocketSession(self, websocket, instance, grant))

    def _on_subscribe(self, connection: HTTPConnection, request: Request, *, is_poll: bool) -> None:
        connection.port.origins.check_page(request.headers)
        cors_fields = connection.port.origins.cors_fields(request.headers)
        keep_alive = request.keeps_alive()
        if request.method == "OPTIONS":
            connection.respond_to(request, 204, {**cors_fields, **PREFLIGHT})
            return
        if request.method != "GET":
            raise MethodNotAllowed(request.method, request.path, SUBSCRIBE_METHODS)
        parsed = parse_subscribe_request(request)
        connection.charge(len(parsed.channels) // QUERY_CHANNELS_PER_COMMAND)
        grant = self._verify_request(connection, request, parsed.instance)
        expiry = {} if grant is None else self._expiry_fields(grant)
        fields = {**cors_fields, **expiry}
        subscriber: HTTPSubscriber
        if is_poll:
            subscriber = LongPoll(connection, self.hub, fields, self.now, keep_alive=keep_alive)
        else:
            subscriber = EventStream(connection, self.hub, fields, self._event_encoder)
        try:
            if grant is not None:
                grant.check_channels(parsed.channels)
            subscriber.subscribe(parsed, grant, self.now())
        except AphlictError as error:
            connection.reject(error, request, expiry)

    def _verify_request(self, connection: HTTPConnection, request: Request, instance: str) -> Grant | None:
        keys = connection.port.keys
        if keys is None:
            return None
        token = request.token()
        if not token:
            raise TokenMissing(
                "this server requires a token: send 'Authorization: Bearer TOKEN' or ?token=TOKEN"
            )
        return verify_token(connection, keys, token, instance, self.unix_now())

    def _expiry_fields(self, grant: Grant) -> dict[str, str]:
        """Return the fields from which a page learns when it needs another token."""
        seconds = grant.seconds_left(self.unix_now())
        return {EXPIRY_FIELD: str(seconds), "Access-Control-Expose-Headers": EXPIRY_FIELD}


class WebSocketSession:
    """Executes the commands of one WebSocket. `grant_timer` is None if its port required no tokens."""

    __slots__ = ("_handler", "grant_timer", "subscriber")

    transport: ClassVar[Transport] = "websocket"

    def __init__(
        self, handler: ClientHandler, websocket: WebSocket, instance: str, grant: Grant | None
    ) -> None:
        self._handler = handler
        self.subscriber = handler.hub.join(instance, websocket)
        websocket.port.server.counters.on_opened(self.transport)
        has_tokens = websocket.port.keys is not None
        self.grant_timer = GrantTimer(websocket, handler.hub, grant) if has_tokens else None
        log.debug(log_events.CONNECTED, websocket.number, websocket.address, instance)

    def on_message(self, websocket: WebSocket, message: WSMessage, /) -> None:
        """Execute a command. One that is refused leaves the connection unchanged."""
        id: Id = None
        try:
            if isinstance(message.data, bytes):
                raise CommandError("a command is a text message")
            command, id = commands.parse_command(message.data)
            self._authorize(websocket, command)
            self._execute(websocket, command, id)
        except SubscriptionsFull:
            websocket.close_over_limit(self._handler.hub.subscription_memory.key)
        except (CommandError, NameTooLong, BadRequest) as error:
            log.info(log_events.COMMAND_REJECTED, websocket.number, websocket.address, error)
            websocket.count(error)
            id = error.id if isinstance(error, CommandError) and error.id is not None else id
            if id is not None:
                websocket.send(commands.error_reply(id, error))

    def _authorize(self, websocket: WebSocket, command: Command) -> None:
        """Raise TokenMissing or ChannelForbidden if the client may not send a command."""
        if self.grant_timer is None or websocket.port.keys is None:
            return
        if isinstance(command, Auth | Ping | Unsubscribe):
            return
        grant = self.grant_timer.grant
        if grant is None:
            raise TokenMissing("this server requires a token: the first command must be 'auth'")
        if isinstance(command, Subscribe):
            grant.check_channels(command.channels)

    def _execute(self, websocket: WebSocket, command: Command, id: Id) -> None:
        log.debug(log_events.COMMAND_RECEIVED, websocket.number, command)
        match command:
            case Subscribe(channels):
                websocket.charge(len(channels) // CHANNELS_PER_COMMAND)
                self._handler.hub.subscribe(self.subscriber, channels)
            case Unsubscribe(channels):
                websocket.charge(len(channels) // CHANNELS_PER_COMMAND)
                self._handler.hub.unsubscribe(self.subscriber, channels)
            case Replay():
                self._replay(websocket, command, id)
                return
            case Auth():
                self._renew(websocket, command, id)
                return
            case Ping():
                websocket.send(commands.PONG_REPLY)
        if id is not None:
            websocket.send(commands.ack(id, **self._resume_token(websocket)))

    def _replay(self, websocket: WebSocket, command: Replay, id: Id) -> None:
        websocket.charge(len(self.subscriber.subscriptions) // SUBSCRIPTIONS_PER_COMMAND)

        def on_done(recovery: Recovery) -> None:
            log.debug(log_events.REPLAYED, websocket.number, recovery)
            if id is not None:
                count, recovered = recovery
                token = self._resume_token(websocket)
                websocket.send(commands.ack(id, count=count, recovered=recovered, **token))

        hub, now = self._handler.hub, self._handler.now()
        if command.after is None:
            cost = hub.replay_age(self.subscriber, command.age, now, on_done)
        else:
            cost = hub.replay_after(self.subscriber, command.after, now, on_done)
        websocket.charge(cost)

    def _renew(self, websocket: WebSocket, command: Auth, id: Id) -> None:
        """Replace the grant, and end the subscriptions that the new one does not allow.

        A port without keys accepts any token: pages may send theirs before the server requires it.
        """
        members: dict[str, object] = {}
        keys = websocket.port.keys
        if self.grant_timer is not None and keys is not None:
            subscriber, now = self.subscriber, self._handler.unix_now()
            grant = verify_token(websocket, keys, command.token, subscriber.instance.name, now)
            self.grant_timer.renew(grant)
            forbidden = [channel for channel in subscriber.subscriptions if not grant.allows(channel)]
            self._handler.hub.unsubscribe(subscriber, forbidden)
            members = {
                "expires": grant.seconds_left(now),
                **({"unsubscribed": forbidden} if forbidden else {}),
            }
        if id is not None:
            websocket.send(commands.ack(id, **members, **self._resume_token(websocket)))

    def _resume_token(self, websocket: WebSocket) -> dict[str, str]:
        """Return the member of an `ack` that tells where to resume after this connection.

        A client without a required token receives none: it would reveal how many messages the server has had.
        """
        timer = self.grant_timer
        if timer is not None and timer.grant is None and websocket.port.keys is not None:
            return {}
        last = self._handler.hub.resume_token(self.subscriber, self._handler.now())
        return {} if last is None else {"last": last}

    def on_close(self, websocket: WebSocket, reason: str, cause: Cause, /) -> None:
        """Leave the hub."""
        log.debug(log_events.DISCONNECTED, websocket.number, reason)
        server = websocket.port.server
        server.counters.on_closed(self.transport, cause)
        server.ended.add(
            self._handler.hub,
            self.subscriber,
            client_of(websocket, self.transport, self.grant),
            cause,
            websocket.write_buffer.unsent(),
            self._handler.now(),
        )
        if self.grant_timer is not None:
            server.timers.cancel(self.grant_timer)
        self._handler.hub.leave(self.subscriber)

    @property
    def grant(self) -> Grant | None:
        """What the token of the client allows; None without a token."""
        return None if self.grant_timer is None else self.grant_timer.grant


class Script:
    """The script of the browser client, plain and compressed. Pages of all origins may load it."""

    def __init__(self, text: bytes) -> None:
        tag = hashlib.sha256(text).hexdigest()[:32]
        self._plain = (text, f'"{tag}"')
        self._compressed = (gzip.compress(text, mtime=0), f'"{tag}-gzip"')

    def respond(self, connection: HTTPConnection, request: Request) -> None:
        """Respond to a GET or HEAD; with 304 if the browser has the script."""
        is_compressed = prefers_gzip(request.headers.get("accept-encoding", ""))
        body, etag = self._compressed if is_compressed else self._plain
        fields = {
            "Content-Type": "text/javascript; charset=utf-8",
            "Cache-Control": f"public, max-age={SCRIPT_MAX_AGE}",
            "ETag": etag,
            "Vary": "Accept-Encoding",
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "X-Content-Type-Options": "nosniff",
        }
        if etag in request.headers.get("if-none-match", ""):
            connection.respond_to(request, 304, fields)
        else:
            coding = {"Content-Encoding": "gzip"} if is_compressed else {}
            connection.respond_to(request, 200, {**fields, **coding}, body)


@cache
def load_script() -> Script:
    """Read the script from the package, once: the process may lose the right to read it."""
    return Script((files("aphlict") / "browser" / "aphlict.js").read_bytes())


def prefers_gzip(accept_encoding: str) -> bool:
    """Whether gzip is acceptable, and not less preferred than no coding (RFC 9110, 12.5.3)."""
    weights: dict[str, float] = {}
    for part in accept_encoding.split(","):
        match = _CODING.fullmatch(part.strip(" \t").lower())
        if match is not None:
            weights[match[1]] = float(match[2] or 1)
    gzip = weights.get("gzip", weights.get("*", 0.0))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)
