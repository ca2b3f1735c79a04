"""Which web pages may use a client port: the checks of `Origin`, and the CORS headers of responses."""

from aphlict.config.descriptions import shorten
from aphlict.errors import OriginForbidden
from aphlict.protocol.http import Request
from aphlict.server.admin_access import SAME_SITE, host_of
from aphlict.server.connection import Connection


def check_origin(connection: Connection, request: Request) -> None:
    """Raise OriginForbidden, and count it, if the request's `Origin` is not among the port's `origins`."""
    header = request.headers.get("origin")
    if connection.port.origins.allows(header):
        return
    origin = shorten(header or "")
    connection.port.server.limit_counters.add("origins", connection.address, f"a page of {origin}")
    raise OriginForbidden(f"pages of {origin} may not subscribe: 'origins' of this server does not list it")


def check_page(connection: Connection, request: Request) -> None:
    """As `check_origin`, for a request that browsers also send without `Origin`. Raises OriginForbidden.

    A browser omits `Origin` from a GET to the page's own origin (Fetch, 3.2). The page's host name may have been
    pointed at this server (DNS rebinding): over plain HTTP, where browsers send no `Sec-Fetch-Site`, only `Host`
    shows it.
    """
    check_origin(connection, request)
    port, headers = connection.port, request.headers
    if not port.origins or "origin" in headers:
        return
    counters = port.server.limit_counters
    if headers.get("sec-fetch-site", "none") not in SAME_SITE:
        counters.add("origins", connection.address, "a page of another site, without 'Origin'")
        raise OriginForbidden("requests from pages of other sites must have an 'Origin' header")
    header = headers.get("host", "")
    host = host_of(header)
    if (host is not None and port.origins.names(host)) or port.access.is_known_host(header):
        return
    shown = shorten(host or header)
    counters.add("origins", connection.address, f"a request without 'Origin' to {shown}")
    raise OriginForbidden(
        f"requests without 'Origin' may not address this server as {shown}: 'origins' does not list it"
    )


def cors(connection: Connection, request: Request) -> dict[str, str]:
    """Return the response headers that let pages of an allowed origin read a response."""
    return connection.port.origins.fields(request.headers.get("origin"))
