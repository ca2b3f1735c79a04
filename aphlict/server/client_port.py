"""The client port: WebSockets and their commands, event streams, polls, and the pages for proxies and browsers."""

import logging
from collections.abc import Callable

from aphlict.config.settings import CHANNELS_PER_COMMAND, SUBSCRIPTIONS_PER_COMMAND
from aphlict.core.hub import Hub, Recovery
from aphlict.core.subscriptions import Subscriber
from aphlict.errors import BadRequest, CommandError, NameTooLong, SubscriptionsFull, UnexpectedBody
from aphlict.protocol import commands
from aphlict.protocol.commands import Auth, Command, Id, Ping, Replay, Subscribe, Unsubscribe
from aphlict.protocol.http import Request, instance_from_path
from aphlict.protocol.websocket import WSMessage
from aphlict.server import exchange
from aphlict.server.auth import SessionGrant, verify_token
from aphlict.server.exchange import Exchange
from aphlict.server.fallback import Fallback
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.origin_check import check_origin
from aphlict.server.websocket_connection import WebSocket

log = logging.getLogger(__name__)


class ClientHandler:
    """Handler of the client ports: WebSockets, event streams and polls go to the hub, other requests to `pages`."""

    max_body_size = 0

    def __init__(self, hub: Hub, pages: exchange.Handler, clock: Callable[[], float]) -> None:
        self._hub = hub
        self._pages = pages
        self._clock = clock
        self._fallback = Fallback(hub, clock)

    def check_head(self, _connection: HTTPConnection, request: Request, /) -> None:
        """Raise UnexpectedBody for any body: one that is not read would be parsed as the next request (RFC 9112,
        11.2)."""
        if request.body_size() != 0:
            raise UnexpectedBody("this is a client port, which takes no body: publish to the admin port")

    def on_request(self, connection: HTTPConnection, request: Request, _body: bytes, /) -> None:
        """Upgrade to a WebSocket, or respond. Raises AphlictError."""
        if request.wants_websocket():
            self._upgrade(connection, request)
        elif not self._fallback.serve(connection, request):
            Exchange(connection, request, keep=False).handle_with(self._pages)

    def _upgrade(self, connection: HTTPConnection, request: Request) -> None:
        check_origin(connection, request)
        instance = instance_from_path(request.path)
        if len(instance.encode()) > self._hub.limits.name:
            raise NameTooLong(f"the instance's name is longer than {self._hub.limits.name} bytes")
        keys = connection.port.keys
        grant = None
        if keys is not None and (token := request.token()):
            now = self._hub.epoch + self._clock()
            grant = verify_token(connection, keys, token, instance, now)

        def open_session(websocket: WebSocket) -> WebSocketSession:
            log.debug("[%d] connected from %s to %s", websocket.number, websocket.address, instance)
            subscriber = self._hub.join(instance, websocket)
            gate = None if keys is None else SessionGrant(websocket, self._hub, subscriber, grant)
            return WebSocketSession(self._hub, self._clock, subscriber, gate)

        connection.upgrade(request, open_session)


class WebSocketSession:
    """Executes the commands of one WebSocket. `grant` is None on a port that requires no tokens."""

    __slots__ = ("_clock", "_hub", "grant", "subscriber")

    def __init__(
        self, hub: Hub, clock: Callable[[], float], subscriber: Subscriber, grant: SessionGrant | None
    ) -> None:
        self._hub = hub
        self._clock = clock
        self.subscriber = subscriber
        self.grant = grant

    def on_message(self, websocket: WebSocket, message: WSMessage, /) -> None:
        """Execute a command. One that fails leaves the connection as it was."""
        id: Id = None
        try:
            if isinstance(message.data, bytes):
                raise CommandError("a command is a text message")
            command, id = commands.parse_command(message.data)
            if self.grant is not None:
                self.grant.check(command)
            self._execute(websocket, command, id)
        except SubscriptionsFull:
            websocket.give_up(self._hub.subscription_memory.key)
        except (CommandError, NameTooLong, BadRequest) as error:
            log.info(
                "[%d] %s sent a command that was rejected: %s", websocket.number, websocket.address, error
            )
            websocket.count(error)
            id = error.id if isinstance(error, CommandError) and error.id is not None else id
            if id is not None:
                websocket.send(commands.error_reply(id, error))

    def _execute(self, websocket: WebSocket, command: Command, id: Id) -> None:
        log.debug("[%d] %s", websocket.number, command)
        match command:
            case Subscribe(channels):
                websocket.charge(len(channels) // CHANNELS_PER_COMMAND)
                self._hub.subscribe(self.subscriber, channels)
            case Unsubscribe(channels):
                websocket.charge(len(channels) // CHANNELS_PER_COMMAND)
                self._hub.unsubscribe(self.subscriber, channels)
            case Replay():
                self._replay(websocket, command, id)
                return
            case Auth():
                self._renew(websocket, command, id)
                return
            case Ping():
                websocket.send(commands.PONG_REPLY)
        if id is not None:
            websocket.send(commands.ack(id, **self._position(websocket)))

    def _replay(self, websocket: WebSocket, command: Replay, id: Id) -> None:
        websocket.charge(len(self.subscriber.subscriptions) // SUBSCRIPTIONS_PER_COMMAND)

        def on_done(recovery: Recovery) -> None:
            log.debug("[%d] %s", websocket.number, recovery)
            if id is not None:
                count, recovered = recovery
                position = self._position(websocket)
                websocket.send(commands.ack(id, count=count, recovered=recovered, **position))

        if command.after is None:
            cost = self._hub.replay_age(self.subscriber, command.age, self._clock(), on_done)
        else:
            cost = self._hub.replay_after(self.subscriber, command.after, self._clock(), on_done)
        websocket.charge(cost)

    def _renew(self, websocket: WebSocket, command: Auth, id: Id) -> None:
        """Use another token. A port that requires none accepts any: pages may send theirs before it requires one."""
        keys = websocket.port.keys
        more: dict[str, object] = {}
        if self.grant is not None and keys is not None:
            instance = self.subscriber.instance.name
            now = self._hub.epoch + self._clock()
            lost = self.grant.renew(verify_token(websocket, keys, command.token, instance, now))
            more = {"expires": self.grant.seconds_left(), **({"unsubscribed": lost} if lost else {})}
        if id is not None:
            websocket.send(commands.ack(id, **more, **self._position(websocket)))

    def _position(self, websocket: WebSocket) -> dict[str, str]:
        """Return the part of an ack that says where to resume after this connection. Nothing before a required token:
        a position counts the messages of the server."""
        if self.grant is not None and not self.grant.is_authorized:
            return {}
        websocket.charge(len(self.subscriber.subscriptions) // SUBSCRIPTIONS_PER_COMMAND)
        last = self._hub.resume_token(self.subscriber, self._clock())
        return {} if last is None else {"last": last}

    def on_close(self, websocket: WebSocket, reason: str, /) -> None:
        """Leave the hub."""
        log.debug("[%d] disconnected: %s", websocket.number, reason)
        if self.grant is not None:
            websocket.port.server.timers.cancel(self.grant)
        self._hub.leave(self.subscriber)
