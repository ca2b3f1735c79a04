"""Credentials of the ports, tokens of clients, and the timers that end what a token allowed."""

import logging
import ssl
from typing import NamedTuple

from aphlict import log_events
from aphlict.config.files import Read, read_file
from aphlict.config.settings import ServerSettings
from aphlict.core.endings import Client
from aphlict.core.hub import Hub
from aphlict.core.metrics import Transport
from aphlict.errors import Forbidden, InvalidToken
from aphlict.server.connection import Connection
from aphlict.server.timer_wheel import HasDeadline
from aphlict.tls.authorities import Authorities, load_authorities
from aphlict.tls.certificates import first_expiry
from aphlict.tls.certificates import load as load_identity
from aphlict.tls.ssl_context import identity_context
from aphlict.tokens.grant import Grant
from aphlict.tokens.key_set import KeySet
from aphlict.tokens.key_set import load as load_keys

log = logging.getLogger(__name__)

CHECK_INTERVAL = 30.0  # seconds between two checks whether the key of a grant is still configured


class Credentials(NamedTuple):
    """The certificate of a port, and what it verifies clients with; None if its settings require none.

    `expires`: the Unix time when the certificate expires.
    """

    tls: ssl.SSLContext | None = None
    keys: KeySet | None = None
    authorities: Authorities | None = None
    expires: float | None = None


def load_credentials(server: ServerSettings, read: Read = read_file) -> Credentials:
    """Read the files of a port. Raises ConfigError or its subclass CertificateError."""
    identity = load_identity(server, read) if server.tls else None
    return Credentials(
        identity_context(identity, read) if identity else None,
        load_keys(server, read),
        load_authorities(server, server.ssl_ca, read) if server.ssl_ca else None,
        first_expiry(identity).timestamp() if identity else None,
    )


def verify_token(connection: Connection, keys: KeySet, token: str, instance: str, unix_now: float) -> Grant:
    """Return what a token allows. Raises InvalidToken, and InstanceForbidden if it is for another instance."""
    server = connection.port.server
    limit = server.limits.request_head
    try:
        if len(token) > limit:
            raise InvalidToken(f"the token is longer than {limit} bytes")
        grant = keys.verify(token, unix_now, connection.charge)
        grant.check_instance(instance)
    except (InvalidToken, Forbidden) as error:
        server.limit_counters.add("auth.keys", connection.address, str(error))
        raise
    subject = grant.sub or "a token without 'sub'"
    log.debug(log_events.TOKEN_ACCEPTED, connection.number, subject, grant)
    return grant


def client_of(connection: Connection, transport: Transport, grant: Grant | None) -> Client:
    """Describe a client for traces."""
    user = None if grant is None else grant.sub or ""
    return Client(connection.number, connection.address, transport, user)


class GrantTimer(HasDeadline):
    """Closes a connection when its grant expires, or when the key of its token is removed from the configuration.

    A connection without a grant, which may be a WebSocket only, has `limits.handshake` to present a token. The timer
    must be cancelled when the connection, or the request with the token, ends before.
    """

    __slots__ = ("_connection", "_hub", "_token_deadline", "grant")

    def __init__(self, connection: Connection, hub: Hub, grant: Grant | None) -> None:
        super().__init__()
        server = connection.port.server
        self._connection = connection
        self._hub = hub
        self._token_deadline = server.timers.now + server.limits.handshake
        self.grant = grant
        server.timers.add(self, self._next_check())

    def renew(self, grant: Grant) -> None:
        """Replace the grant."""
        self.grant = grant
        self._connection.port.server.timers.add(self, self._next_check())

    def _expiry(self) -> float:
        """Return when the grant ends, in the time of the timers. It changes when the system clock is set, by which
        tokens expire."""
        return self._token_deadline if self.grant is None else self.grant.expires - self._hub.epoch

    def _next_check(self) -> float:
        """A reload may remove the key of the token at any time."""
        return min(self._expiry(), self._connection.port.server.timers.now + CHECK_INTERVAL)

    def on_deadline(self, now: float, /) -> float | None:
        """Close the connection if the grant has ended."""
        keys = self._connection.port.keys
        if keys is None:
            return now + CHECK_INTERVAL  # a reload has removed the requirement of tokens
        reason = self._end_reason(now, keys)
        if reason is None:
            return self._next_check()
        if self.grant is None:
            counters = self._connection.port.server.limit_counters
            counters.add("auth.keys", self._connection.address, reason)
        self._connection.discard()
        self._connection.close(InvalidToken.close_code, reason, reason, "token")
        return None

    def _end_reason(self, now: float, keys: KeySet) -> str | None:
        if now >= self._expiry():
            return "no token was received in time" if self.grant is None else "the token has expired"
        if self.grant is not None and not keys.has(self.grant.key):
            return "the key of the token has been removed"
        return None
