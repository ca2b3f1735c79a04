"""What the connections of one port share: beside their limits, who may speak there, and whose tokens count."""

from aphlict.config.expectations import shorten
from aphlict.config.origins import Origins
from aphlict.errors import OriginRefused
from aphlict.net.connection import Connection, Context
from aphlict.servers.guard import Guard
from aphlict.tls.authorities import Authorities
from aphlict.tokens.keyring import Keyring
from aphlict.wire.handshake import Request


class PortContext(Context):
    """The context of a port: `origins` and `keys` count on a client port, `guard` on an admin port.

    `keys` prove the tokens that it asks browsers for; None where it asks for none. Likewise `authorities` and the
    certificates of publishers.
    """

    origins = Origins(())
    keys: Keyring | None = None
    authorities: Authorities | None = None
    guard: Guard


def check_origin(connection: Connection, request: Request) -> None:
    """Count and refuse a page of an origin that is not wanted. Raises OriginRefused."""
    header = request.headers.get("origin")
    origins = _context(connection).origins
    if origins.allows(header):
        return
    page = shorten(header or "")
    connection.context.hits.add("origins", connection.address, f"a page of {page}")
    raise OriginRefused(
        f"pages of the origin {page} may not listen here: the key 'origins' of this server does not name it"
    )


def cors(connection: Connection, request: Request) -> dict[str, str]:
    """The fields of an answer that let a page of a wanted origin read it."""
    return _context(connection).origins.fields(request.headers.get("origin"))


def keys_of(connection: Connection) -> Keyring | None:
    """What tokens are proven with on the port that a connection came to."""
    return _context(connection).keys


def is_proven(connection: Connection) -> bool:
    """Whether the certificate of a connection is one that its port accepts now; without `ssl.ca` any is."""
    authorities = _context(connection).authorities
    if authorities is None:
        return True
    certificate = connection.certificate
    return certificate is not None and authorities.accept(certificate)


def _context(connection: Connection) -> PortContext:
    context = connection.context
    assert isinstance(context, PortContext)
    return context
