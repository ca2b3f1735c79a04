"""Who may listen, where a port asks for tokens: what is shown is proven, and what it allowed ends with it."""

import logging

from aphlict.core.hub import Hub
from aphlict.core.subscriptions import Subscriber
from aphlict.errors import Forbidden, InvalidToken, TokenMissing
from aphlict.protocol.commands import Auth, Command, Ping, Subscribe, Unsubscribe
from aphlict.protocol.http import Request
from aphlict.server.connection import Connection
from aphlict.server.port import keys_of
from aphlict.server.timer_wheel import HasDeadline
from aphlict.tokens.grant import Grant
from aphlict.tokens.key_set import KeySet

log = logging.getLogger(__name__)

LOOK = 30.0  # seconds after which a grant is looked at again: its key may have been taken away


def prove(connection: Connection, keys: KeySet, token: str, instance: str, unix_now: float) -> Grant:
    """Say what a token allows. Raises InvalidToken, and Forbidden where it is for another instance."""
    limit = connection.context.limits.request_head
    try:
        if len(token) > limit:
            raise InvalidToken(f"the token is longer than {limit} bytes")
        grant = keys.verify(token, unix_now, connection.charge)
        grant.check_instance(instance)
    except (InvalidToken, Forbidden) as error:
        connection.context.hits.add("auth.keys", connection.address, str(error))
        raise
    log.debug("[%d] %s may listen to %s", connection.number, grant.sub or "a token without 'sub'", grant)
    return grant


def admit(connection: Connection, keys: KeySet, request: Request, instance: str, unix_now: float) -> Grant:
    """Say what the token of a request allows. Raises TokenMissing beside what `prove` does."""
    token = request.token()
    if not token:
        raise TokenMissing("this server asks for a token: 'Authorization: Bearer' or ?token= is expected")
    return prove(connection, keys, token, instance, unix_now)


class GrantTimer(HasDeadline):
    """Ends what a token allowed when it expires, or when its key is taken away; one for each use of a token, to be
    cancelled where that ends before."""

    __slots__ = ("_hub", "connection", "grant")

    def __init__(self, connection: Connection, hub: Hub, grant: Grant | None) -> None:
        super().__init__()
        self.connection = connection
        self.grant = grant
        self._hub = hub
        connection.context.deadlines.add(self, self.next_look())

    def deadline(self) -> float:
        """When it ends, on the clock of the deadlines."""
        assert self.grant is not None
        return self.grant.expires - self._hub.epoch  # the clock that tokens go by may be set

    def next_look(self) -> float:
        """When to look at it next: a key may be taken away at any time."""
        return min(self.deadline(), self.connection.context.deadlines.now + LOOK)

    def on_deadline(self, now: float, /) -> float | None:
        """Part of the interface of Timed."""
        keys = keys_of(self.connection)
        if keys is None:
            return now + LOOK  # no token is asked for any more
        reason = self._why_end(now, keys)
        if reason is None:
            return self.next_look()
        if self.grant is None:
            self.connection.context.hits.add("auth.keys", self.connection.address, reason)
        self.connection.discard()
        self.connection.close(InvalidToken.close_code, reason, reason)
        return None

    def _why_end(self, now: float, keys: KeySet) -> str | None:
        if now >= self.deadline():
            return "no token came in time" if self.grant is None else "the token has expired"
        if self.grant is not None and not keys.has(self.grant.key):
            return "the key of the token is no longer in force"
        return None


class WebSocketSession(GrantTimer):
    """A WebSocket on a port that asks for tokens, as its tag: until it has shown one it may do nothing."""

    __slots__ = ("_patience", "subscriber")

    def __init__(self, connection: Connection, hub: Hub, subscriber: Subscriber, grant: Grant | None) -> None:
        context = connection.context
        self._patience = context.deadlines.now + context.limits.handshake
        self.subscriber = subscriber
        super().__init__(connection, hub, grant)

    def deadline(self) -> float:
        """When it ends: without a token, as a handshake does that is not finished."""
        return self._patience if self.grant is None else super().deadline()

    @property
    def is_admitted(self) -> bool:
        """Whether it has shown a token, or none is asked for any more."""
        return self.grant is not None or keys_of(self.connection) is None

    def check(self, command: Command) -> None:
        """Raise TokenMissing or Forbidden for a command that it may not give."""
        if isinstance(command, Auth | Ping | Unsubscribe) or keys_of(self.connection) is None:
            return
        if self.grant is None:
            raise TokenMissing("this server asks for a token: the first command has to be 'auth'")
        if isinstance(command, Subscribe):
            self.grant.check_channels(command.channels)

    def renew(self, grant: Grant) -> list[str]:
        """Go on with another token; the subscriptions that it does not allow are ended, and returned."""
        self.grant = grant
        lost = [name for name in self.subscriber.subscriptions if not grant.allows(name)]
        self._hub.unsubscribe(self.subscriber, lost)
        self.connection.context.deadlines.add(self, self.next_look())
        return lost

    def seconds_left(self) -> int:
        """How long the token still holds."""
        assert self.grant is not None
        return self.grant.seconds_left(self._hub.epoch + self.connection.context.deadlines.now)
