"""The client server: browsers that hold a WebSocket, and what they ask for."""

import logging
from collections.abc import Callable

from aphlict.config.settings import CHANNELS_PER_COMMAND, SUBSCRIPTIONS_PER_COMMAND
from aphlict.core.hub import Hub, Recovery
from aphlict.core.subscriptions import Subscriber
from aphlict.errors import (
    BadRequest,
    CommandError,
    NameTooLong,
    SubscriptionsFull,
    UnexpectedBody,
)
from aphlict.protocol import commands
from aphlict.protocol.commands import Auth, Command, Id, Ping, Replay, Subscribe, Unsubscribe
from aphlict.protocol.http import Request, instance_from_path
from aphlict.protocol.websocket import WSMessage
from aphlict.server.auth import WebSocketSession, verify_token
from aphlict.server.connection import Application, Connection
from aphlict.server.exchange import Exchange, Handler
from aphlict.server.fallback import Fallback
from aphlict.server.port import check_origin, keys_of
from aphlict.server.sending import State
from aphlict.server.streaming import BrowserConnection

log = logging.getLogger(__name__)


class Browsers(Application):
    """The application of the client ports: WebSockets, event streams and polls go to the hub, the rest to `pages`.

    It serves BrowserConnections; the tag of a WebSocket is its Subscriber.
    """

    def __init__(self, hub: Hub, pages: Handler, clock: Callable[[], float]) -> None:
        self._hub = hub
        self._pages = pages
        self._clock = clock
        self._fallback = Fallback(hub, clock)

    def on_request(self, connection: Connection, request: Request, /) -> None:
        """Upgrade to a WebSocket, or answer the request. Raises AphlictError: UnexpectedBody for any body, as
        an unread one would be parsed as the next request (RFC 9112, 11.2)."""
        if request.body_size() != 0:
            raise UnexpectedBody("this is a client port, which takes no body: publish to the admin port")
        if not request.wants_websocket():
            assert isinstance(connection, BrowserConnection)
            if not self._fallback.serve(connection, request):
                Exchange(connection, request, keep=False).handle_with(self._pages)
            return
        check_origin(connection, request)
        instance = instance_from_path(request.path)
        if len(instance.encode()) > self._hub.limits.name:
            raise NameTooLong(f"the instance's name is longer than {self._hub.limits.name} bytes")
        keys = keys_of(connection)
        grant = None
        if keys is not None and (token := request.token()):
            grant = verify_token(connection, keys, token, instance, self._unix_now())
        connection.upgrade(request)
        if connection.state is State.OPEN:
            subscriber = self._hub.join(instance, connection)
            if keys is None:
                connection.tag = subscriber
            else:
                connection.tag = WebSocketSession(connection, self._hub, subscriber, grant)
            log.debug("[%d] connected from %s to %s", connection.number, connection.address, instance)

    def on_message(self, connection: Connection, received: WSMessage, /) -> None:
        """Do a command. One that cannot be done leaves the connection as it was."""
        tag = connection.tag
        subscriber = tag.subscriber if isinstance(tag, WebSocketSession) else tag
        assert isinstance(subscriber, Subscriber)
        id: Id = None
        try:
            if isinstance(received.data, bytes):
                raise CommandError("a command is a text message")
            command, id = commands.parse_command(received.data)
            if isinstance(tag, WebSocketSession):
                tag.check(command)
            self._do(connection, subscriber, command, id)
        except SubscriptionsFull:
            connection.give_up(self._hub.subscription_memory.key)
        except (CommandError, NameTooLong, BadRequest) as error:
            log.info(
                "[%d] %s sent a command that was not done: %s", connection.number, connection.address, error
            )
            connection.count(error)
            id = error.id if isinstance(error, CommandError) and error.id is not None else id
            if id is not None:
                connection.send(commands.error_reply(id, error))

    def _do(self, connection: Connection, subscriber: Subscriber, command: Command, id: Id) -> None:
        log.debug("[%d] %s", connection.number, command)
        match command:
            case Subscribe(channels):
                connection.charge(len(channels) // CHANNELS_PER_COMMAND)
                self._hub.subscribe(subscriber, channels)
            case Unsubscribe(channels):
                connection.charge(len(channels) // CHANNELS_PER_COMMAND)
                self._hub.unsubscribe(subscriber, channels)
            case Replay():
                self._replay(connection, subscriber, command, id)
                return
            case Auth():
                self._renew(connection, subscriber, command, id)
                return
            case Ping():
                connection.send(commands.PONG_REPLY)
        if id is not None:
            connection.send(commands.ack(id, **self._where(connection, subscriber)))

    def _replay(self, connection: Connection, subscriber: Subscriber, command: Replay, id: Id) -> None:
        connection.charge(len(subscriber.subscriptions) // SUBSCRIPTIONS_PER_COMMAND)

        def on_done(recovery: Recovery) -> None:
            log.debug("[%d] %s", connection.number, recovery)
            if id is not None:
                count, recovered = recovery
                where = self._where(connection, subscriber)
                answer = commands.ack(id, count=count, recovered=recovered, **where)
                connection.send(answer)

        if command.after is None:
            cost = self._hub.replay_age(subscriber, command.age, self._clock(), on_done)
        else:
            cost = self._hub.replay_after(subscriber, command.after, self._clock(), on_done)
        connection.charge(cost)

    def _renew(self, connection: Connection, subscriber: Subscriber, command: Auth, id: Id) -> None:
        """Go on with another token. A port that asks for none takes any: pages may show theirs before it does."""
        visitor, keys = connection.tag, keys_of(connection)
        more: dict[str, object] = {}
        if isinstance(visitor, WebSocketSession) and keys is not None:
            instance = subscriber.instance.name
            lost = visitor.renew(verify_token(connection, keys, command.token, instance, self._unix_now()))
            more = {"expires": visitor.seconds_left(), **({"unsubscribed": lost} if lost else {})}
        if id is not None:
            connection.send(commands.ack(id, **more, **self._where(connection, subscriber)))

    def _unix_now(self) -> float:
        return self._hub.epoch + self._clock()

    def _where(self, connection: Connection, subscriber: Subscriber) -> dict[str, str]:
        """What an ack says beside: where to resume after this connection. Nothing before a token that is asked for: a
        position counts the messages of the server."""
        if isinstance(connection.tag, WebSocketSession) and not connection.tag.is_authorized:
            return {}
        connection.charge(len(subscriber.subscriptions) // SUBSCRIPTIONS_PER_COMMAND)
        last = self._hub.resume_token(subscriber, self._clock())
        return {} if last is None else {"last": last}

    def on_close(self, connection: Connection, reason: str, /) -> None:
        """Forget a browser."""
        tag, connection.tag = connection.tag, None
        subscriber = tag
        if isinstance(tag, WebSocketSession):
            subscriber = tag.subscriber
            connection.context.deadlines.cancel(tag)
        log.debug("[%d] disconnected: %s", connection.number, reason)
        if isinstance(subscriber, Subscriber):
            self._hub.leave(subscriber)
