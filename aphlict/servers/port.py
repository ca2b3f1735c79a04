"""What the connections of one port share: beside their limits, who may speak there."""

from aphlict.config.expectations import shorten
from aphlict.config.origins import Origins
from aphlict.errors import OriginRefused
from aphlict.net.connection import Connection, Context
from aphlict.servers.guard import Guard
from aphlict.wire.handshake import Request


class PortContext(Context):
    """The context of a port: `origins` counts on a client port, `guard` on an admin port."""

    origins = Origins(())
    guard: Guard


def check_origin(connection: Connection, request: Request) -> None:
    """Count and refuse a page of an origin that is not wanted. Raises OriginRefused."""
    header = request.headers.get("origin")
    if _origins(connection).allows(header):
        return
    page = shorten(header or "")
    connection.context.hits.add("origins", connection.address, f"a page of {page}")
    raise OriginRefused(
        f"pages of the origin {page} may not listen here: the key 'origins' of this server does not name it"
    )


def cors(connection: Connection, request: Request) -> dict[str, str]:
    """The fields of an answer that let a page of a wanted origin read it."""
    return _origins(connection).fields(request.headers.get("origin"))


def _origins(connection: Connection) -> Origins:
    context = connection.context
    assert isinstance(context, PortContext)
    return context.origins
