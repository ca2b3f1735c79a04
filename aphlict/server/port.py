"""What the connections of one port share: beside their limits, who may speak there, and whose tokens count."""

from aphlict.config.descriptions import shorten
from aphlict.config.origins import Origins
from aphlict.errors import OriginForbidden
from aphlict.protocol.http import Request
from aphlict.server.admin_access import SAME_SITE, AdminAccess, host_of
from aphlict.server.connection import Connection, Context
from aphlict.tls.authorities import Authorities
from aphlict.tokens.key_set import KeySet


class PortContext(Context):
    """The context of a port: `origins` and `keys` count on a client port; `guard` checks requests on an admin port,
    and host names on both.

    `keys` prove the tokens that it asks browsers for; None where it asks for none. Likewise `authorities` and the
    certificates of publishers.
    """

    origins = Origins(())
    keys: KeySet | None = None
    authorities: Authorities | None = None
    guard: AdminAccess


def check_origin(connection: Connection, request: Request) -> None:
    """Count and refuse a page of an origin that is not wanted. Raises OriginForbidden."""
    header = request.headers.get("origin")
    origins = _context(connection).origins
    if origins.allows(header):
        return
    page = shorten(header or "")
    connection.context.hits.add("origins", connection.address, f"a page of {page}")
    raise OriginForbidden(
        f"pages of the origin {page} may not listen here: the key 'origins' of this server does not name it"
    )


def check_page(connection: Connection, request: Request) -> None:
    """As `check_origin`, for a request that a page may make without `Origin`. Raises OriginForbidden.

    A browser leaves `Origin` out of a GET to the page's own origin (Fetch, 3.2). The page may have its name lead here
    (DNS rebinding): over plain HTTP only `Host` shows that, as browsers send no `Sec-Fetch-Site` there.
    """
    check_origin(connection, request)
    context = _context(connection)
    headers = request.headers
    if not context.origins or "origin" in headers:
        return
    if headers.get("sec-fetch-site", "none") not in SAME_SITE:
        connection.context.hits.add("origins", connection.address, "a page of another site, without 'Origin'")
        raise OriginForbidden("pages of other sites may not listen here without saying which they are")
    header = headers.get("host", "")
    host = host_of(header)
    if (host is not None and context.origins.names(host)) or context.guard.is_known_host(header):
        return
    shown = shorten(host or header)
    connection.context.hits.add("origins", connection.address, f"a request without 'Origin' to {shown}")
    raise OriginForbidden(
        f"without 'Origin' nobody may listen here under the name {shown}: the key 'origins' of this server does not"
        " name it"
    )


def cors(connection: Connection, request: Request) -> dict[str, str]:
    """The fields of an answer that let a page of a wanted origin read it."""
    return _context(connection).origins.fields(request.headers.get("origin"))


def keys_of(connection: Connection) -> KeySet | None:
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
