"""Credentials of the ports, tokens of clients, and the timers that end what a token allowed."""

import logging
import ssl
from typing import NamedTuple

from aphlict.config.files import Read, read_file
from aphlict.config.settings import ServerSettings
from aphlict.core.hub import Hub
from aphlict.core.subscriptions import Subscriber
from aphlict.errors import Forbidden, InvalidToken, TokenMissing
from aphlict.protocol.commands import Auth, Command, Ping, Subscribe, Unsubscribe
from aphlict.protocol.http import Request
from aphlict.server.connection import Connection
from aphlict.server.timer_wheel import HasDeadline
from aphlict.tls.authorities import Authorities, load_authorities
from aphlict.tls.context import server_context
from aphlict.tokens.grant import Grant
from aphlict.tokens.key_set import KeySet
from aphlict.tokens.key_set import load as load_keys

log = logging.getLogger(__name__)

CHECK_INTERVAL = 30.0  # seconds between two checks whether the key of a grant is still configured


class Credentials(NamedTuple):
    """The certificate of a port, and what it verifies clients with; None if its settings require none."""

    tls: ssl.SSLContext | None = None
    keys: KeySet | None = None
    authorities: Authorities | None = None


def load_credentials(server: ServerSettings, read: Read = read_file) -> Credentials:
    """Read the files of a port. Raises ConfigError or its subclass CertificateError."""
    return Credentials(
        server_context(server, read) if server.tls else None,
        load_keys(server, read),
        load_authorities(server, server.ssl_ca, read) if server.ssl_ca else None,
    )


def verify_token(connection: Connection, keys: KeySet, token: str, instance: str, unix_now: float) -> Grant:
    """Return what a token allows. Raises InvalidToken; Forbidden if it is for another instance."""
    limit = connection.port.server.limits.request_head
    try:
        if len(token) > limit:
            raise InvalidToken(f"the token is longer than {limit} bytes")
        grant = keys.verify(token, unix_now, connection.charge)
        grant.check_instance(instance)
    except (InvalidToken, Forbidden) as error:
        connection.port.server.limit_counters.add("auth.keys", connection.address, str(error))
        raise
    log.debug("[%d] %s may subscribe to %s", connection.number, grant.sub or "a token without 'sub'", grant)
    return grant


def verify_request(
    connection: Connection, keys: KeySet, request: Request, instance: str, unix_now: float
) -> Grant:
    """Return what the token of a request allows. Raises TokenMissing, and as `verify_token`."""
    token = request.token()
    if not token:
        raise TokenMissing("this server requires a token: send 'Authorization: Bearer TOKEN' or ?token=TOKEN")
    return verify_token(connection, keys, token, instance, unix_now)


class GrantTimer(HasDeadline):
    """Closes a connection when its token expires or the key of the token is removed from the configuration.

    Must be cancelled when the connection, or the request with the token, ends before.
    """

    __slots__ = ("_hub", "connection", "grant")

    def __init__(self, connection: Connection, hub: Hub, grant: Grant | None) -> None:
        super().__init__()
        self.connection = connection
        self.grant = grant
        self._hub = hub
        connection.port.server.timers.add(self, self.next_check())

    def expires(self) -> float:
        """Return when the grant ends, in the time of `deadlines`. The system clock, by which tokens expire, may be
        set: this may change."""
        assert self.grant is not None
        return self.grant.expires - self._hub.epoch

    def next_check(self) -> float:
        """Return when to check the grant: a reload may remove its key at any time."""
        return min(self.expires(), self.connection.port.server.timers.now + CHECK_INTERVAL)

    def on_deadline(self, now: float, /) -> float | None:
        """Close the connection if the grant has ended."""
        keys = self.connection.port.keys
        if keys is None:
            return now + CHECK_INTERVAL  # a reload has removed the requirement of tokens
        reason = self._end_reason(now, keys)
        if reason is None:
            return self.next_check()
        if self.grant is None:
            self.connection.port.server.limit_counters.add("auth.keys", self.connection.address, reason)
        self.connection.discard()
        self.connection.close(InvalidToken.close_code, reason, reason)
        return None

    def _end_reason(self, now: float, keys: KeySet) -> str | None:
        if now >= self.expires():
            return "no token was received in time" if self.grant is None else "the token has expired"
        if self.grant is not None and not keys.has(self.grant.key):
            return "the key of the token has been removed"
        return None


class SessionGrant(GrantTimer):
    """The grant of a WebSocket. Without a token, the WebSocket is closed after `limits.handshake`."""

    __slots__ = ("_token_deadline", "subscriber")

    def __init__(self, connection: Connection, hub: Hub, subscriber: Subscriber, grant: Grant | None) -> None:
        server = connection.port.server
        self._token_deadline = server.timers.now + server.limits.handshake
        self.subscriber = subscriber
        super().__init__(connection, hub, grant)

    def expires(self) -> float:
        """Return when the grant ends, or when the client must have sent its token."""
        return self._token_deadline if self.grant is None else super().expires()

    @property
    def is_authorized(self) -> bool:
        """Whether the client has sent a token, or none is required any more."""
        return self.grant is not None or self.connection.port.keys is None

    def check(self, command: Command) -> None:
        """Raise TokenMissing or Forbidden if the client may not send a command."""
        if isinstance(command, Auth | Ping | Unsubscribe) or self.connection.port.keys is None:
            return
        if self.grant is None:
            raise TokenMissing("this server requires a token: the first command must be 'auth'")
        if isinstance(command, Subscribe):
            self.grant.check_channels(command.channels)

    def renew(self, grant: Grant) -> list[str]:
        """Replace the grant. Ends and returns the subscriptions that the new one does not allow."""
        self.grant = grant
        removed = [name for name in self.subscriber.subscriptions if not grant.allows(name)]
        self._hub.unsubscribe(self.subscriber, removed)
        self.connection.port.server.timers.add(self, self.next_check())
        return removed

    def seconds_left(self) -> int:
        """Return the seconds until the grant ends."""
        assert self.grant is not None
        return self.grant.seconds_left(self._hub.epoch + self.connection.port.server.timers.now)
