"""How connections come in: counted, at a bounded pace, and told so where there is no room for them."""

import socket
import ssl
from collections.abc import Collection, Iterable

from aphlict.config.origins import Origins
from aphlict.config.settings import Limits, ServerSettings, Settings
from aphlict.errors import BadRequest, TooManyConnections, TooManyPublishers
from aphlict.protocol.forwarded import TrustedProxies
from aphlict.protocol.http import Request
from aphlict.server import limits as capacity
from aphlict.server.admin_access import AdminAccess
from aphlict.server.connection import Application, Connection
from aphlict.server.context import Surroundings
from aphlict.server.credentials import Credentials
from aphlict.server.limits import ConnectionLimiter, NoLimit, PendingSlots, TokenBucket
from aphlict.server.pending import PendingProxyConnection
from aphlict.server.port import PortContext
from aphlict.server.tls_socket import TLSSocket


class AdmissionLimits:
    """What the entrances to all ports of one type share: whoever comes is counted, whichever port it comes to."""

    def __init__(self, kind: str, settings: Settings) -> None:
        self._kind = kind
        full = TooManyPublishers if kind == "admin" else TooManyConnections
        self.door = ConnectionLimiter(*self._bounds(settings), full)
        self.porch = PendingSlots()
        self.arriving = PendingSlots()
        self.pace = TokenBucket(self._pace(settings))

    def _bounds(self, settings: Settings) -> tuple[int, int | None]:
        if self._kind == "admin":
            return capacity.for_publishers(settings), None
        return capacity.for_browsers(settings).connections, settings.limits.connections_address

    def _pace(self, settings: Settings) -> int | None:
        return None if self._kind == "admin" else settings.limits.connections_second

    def reload(self, settings: Settings, addresses: Iterable[str]) -> None:
        """Use other limits from now on. `addresses` are those of all who are in."""
        self.door.reload(*self._bounds(settings), addresses)
        self.pace.a_second = self._pace(settings)


class Acceptor:
    """The way in to one port."""

    def __init__(
        self,
        server: ServerSettings,
        names: Collection[str],
        connection: type[Connection],
        application: Application,
        gate: AdmissionLimits,
        surroundings: Surroundings,
    ) -> None:
        self._connection = connection
        self._gate = gate
        self._surroundings = surroundings
        self._context = PortContext(application, gate.door, surroundings)
        self._of_balancers = PortContext(application, NoLimit(), surroundings)
        self._turning_away = PortContext(RejectAll(), gate.porch, surroundings)
        self._tls: ssl.SSLContext | None = None
        self.use(server, names)

    def use(self, server: ServerSettings, names: Collection[str]) -> None:
        """Follow other settings from now on. `names` are those of this machine."""
        self._server = server
        for context in (self._context, self._of_balancers):
            context.proxies = TrustedProxies(server.proxy_trusted)
            context.origins = Origins(server.origins)
            context.guard = AdminAccess(server, names)

    def equip(self, credentials: Credentials) -> bool:
        """Use these from now on; tokens of keys that are no longer among them end soon.

        Returns whether a certificate that was accepted before may not be now: then see `port.is_proven`.
        """
        before, after = self._context.authorities, credentials.authorities
        self._tls = credentials.tls
        for context in (self._context, self._of_balancers):
            context.keys = credentials.keys
            context.authorities = credentials.authorities
        return after is not None and (before is None or not after.include(before))

    def limit(self, limits: Limits) -> None:
        """Use other limits from now on, also for who is in."""
        for context in (self._context, self._of_balancers, self._turning_away):
            context.limits = limits

    def on_accept(self, sock: socket.socket, address: str) -> None:
        """A connection has come, perhaps through a balancer that says for whom it is."""
        if self._server.proxy_protocol:
            self._await_header(sock, address)
        else:
            self._let_in(sock, address)

    def _await_header(self, sock: socket.socket, address: str) -> None:
        gate = self._gate
        if not gate.arriving.enter(gate.door.room):
            self._surroundings.hits.add("limits.connections", address)
            sock.close()
            return
        try:
            PendingProxyConnection(
                sock, address, self._surroundings, gate.arriving, self._let_in, self._let_check_in
            )
        except OSError:
            gate.arriving.leave(address)
            raise

    def _let_in(self, sock: socket.socket, address: str) -> None:
        """Let it in, or tell it that there is no room. Raises OSError where it is gone."""
        counted = None if self._context.proxies.trusts(address) else address
        try:
            self._gate.door.enter(counted)
        except BadRequest as error:
            self._turn_away(sock, address, error)
            return
        try:
            self._open(self._connection, sock, address, self._context)
        except OSError:
            self._gate.door.leave(counted)
            raise

    def _let_check_in(self, sock: socket.socket, address: str) -> None:
        """Let in a balancer that speaks for itself. Raises OSError where it is gone."""
        self._open(self._connection, sock, address, self._of_balancers)

    def _turn_away(self, sock: socket.socket, address: str, error: BadRequest) -> None:
        if not self._gate.porch.enter():
            self._surroundings.hits.add(error.limit or "", address)
            sock.close()
            return
        try:
            self._open(Connection, sock, address, self._turning_away).tag = error
        except OSError:
            self._gate.porch.leave(address)
            raise

    def _open(
        self, kind: type[Connection], sock: socket.socket, address: str, context: PortContext
    ) -> Connection:
        """Make a connection of a socket. Raises OSError where that is gone, or the system has no room for it."""
        if self._tls is not None:
            sock = TLSSocket(sock, self._tls, self._surroundings.bridge)
        try:
            return kind(sock, address, context)
        except OSError:
            sock.close()  # the caller has another object, which TLS took the descriptor from
            raise


class RejectAll(Application):
    """The application of connections for which there is no room. Their tag is the error that says why."""

    def on_request(self, connection: Connection, _request: Request, /) -> None:
        """Refuse whatever is asked for."""
        assert isinstance(connection.tag, BadRequest)
        raise connection.tag
