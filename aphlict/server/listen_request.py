"""What a browser without a WebSocket asks for: the query of an event stream or a poll."""

from msgspec import Struct

from aphlict.errors import BadRequest
from aphlict.protocol.commands import MAX_AFTER
from aphlict.protocol.http import Request, instance_from_path, parse_query

MAX_WAIT, DEFAULT_WAIT = 60.0, 25.0  # seconds


class ListenRequest(Struct, frozen=True):
    """The messages that are asked for: of which channels, after which ones, and how long to wait for them."""

    instance: str
    channels: tuple[str, ...]
    after: tuple[str, ...]
    wait: float


def parse_listen_request(request: Request) -> ListenRequest:
    """Read the target and the headers of a request; raises BadRequest."""
    path, _, query = request.target.partition("?")
    arguments = parse_query(query)
    channels = tuple(dict.fromkeys(arguments.get("channel", ())))
    if not channels:
        raise BadRequest("the query names no channel: ?channel=A&channel=B is expected")
    after = [*arguments.get("after", ()), request.headers.get("last-event-id", "")]
    return ListenRequest(
        instance=instance_from_path(path.rpartition("/")[0]),
        channels=channels,
        after=_names(after),
        wait=_read_wait(arguments.get("wait", [""])[-1]),
    )


def _names(values: list[str]) -> tuple[str, ...]:
    """Each value is a name or a list of names with commas; as a name may contain a comma, it counts as both. The last
    MAX_AFTER names count."""
    names = dict.fromkeys(name for value in values for name in value.split(",") if name)
    lists = [value for value in values if "," in value]
    return tuple(dict.fromkeys([*list(names)[-MAX_AFTER:], *lists[-MAX_AFTER:]]))


def _read_wait(text: str) -> float:
    try:
        wait = float(text or DEFAULT_WAIT)
    except ValueError as error:
        raise BadRequest("'wait' must be a number of seconds from 0 to 60") from error
    if not 0 <= wait <= MAX_WAIT:
        raise BadRequest("'wait' must be a number of seconds from 0 to 60")
    return wait
