"""The head of a request on a client port: read strictly, and answered where it asks for a WebSocket."""

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import lru_cache
from hashlib import sha1
from http import HTTPStatus
from http.client import responses
from time import time
from urllib.parse import quote, unquote, unquote_to_bytes

from msgspec import Struct
from msgspec.json import encode

from aphlict.errors import (
    AphlictError,
    BadRequest,
    ConnectionHeaderRequired,
    HeadTooLarge,
    HTTP11Required,
    InvalidRequestLine,
    InvalidWebSocketKey,
    UnsupportedVersion,
)

END = b"\r\n\r\n"
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
DEFAULT_INSTANCE = "default"
PROTOCOL = "aphlict"  # the sub-protocol: what is agreed to where a browser offers it
TOKEN_PREFIX = "token."  # noqa: S105 -- of a sub-protocol that is no protocol but a token
_CHOSEN = f"Sec-WebSocket-Protocol: {PROTOCOL}\r\n".encode()

_START = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~\x80-\xff]+) HTTP/1\.([01])")
# RFC 9112, 5: a token, a colon without a space before it, and a value on the same line. The spaces around the
# value are left to `strip`: as parts of the pattern, they would be tried in every way that they can be shared out.
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
_AUTHORITY = re.compile(r"https?://[^/?#]*(?=/|\?|$)", re.IGNORECASE)
_BARE_LF = re.compile(rb"(?<!\r)\n")
_LENGTH = re.compile(r"[0-9]{1,18}")
_TOKEN = re.compile(r"[?&]token=([^&]*)")
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")


class Request(Struct, frozen=True):
    """The head of an HTTP request; the names in `headers` are lower-case, repeated ones joined with a comma."""

    method: str
    target: str
    minor: int  # HTTP/1.minor
    headers: dict[str, str]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def wants_websocket(self) -> bool:
        """Whether `Upgrade` names websocket (RFC 6455, 4.2.1)."""
        upgrade = self.headers.get("upgrade")
        return upgrade is not None and "websocket" in _tokens(upgrade)

    def token(self) -> str | None:
        """The token that it shows: as a bearer (RFC 6750), in a sub-protocol, or in the query, in this order."""
        scheme, _, credentials = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return credentials.strip()
        for protocol in _split(self.headers.get("sec-websocket-protocol", "")):
            if protocol.startswith(TOKEN_PREFIX):
                return protocol.removeprefix(TOKEN_PREFIX)
        found = _TOKEN.search(self.target)
        return None if found is None else unquote(found[1])

    def keeps_alive(self) -> bool:
        """Whether another request may follow on the connection (RFC 9112, 9.3)."""
        said = self.headers.get("connection")
        if said is None:
            return bool(self.minor)
        wanted = _tokens(said)
        return "keep-alive" in wanted if self.minor == 0 else "close" not in wanted

    def body_size(self) -> int | None:
        """Bytes of the body; None where it comes in chunks."""
        return None if "transfer-encoding" in self.headers else int(self.headers.get("content-length", 0))


def _tokens(value: str) -> list[str]:
    return _split(value.lower())


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",")]


def parse_head(head: bytes) -> Request:
    """Parse a whole head without the empty line that ends it. Raises BadRequest where RFC 9112 is broken."""
    lines = head.split(b"\r\n")
    start = _START.fullmatch(lines[0])
    if start is None:
        raise InvalidRequestLine("the first line is no HTTP/1.1 request line")
    method, target, minor = start.groups()
    headers = _read_fields(lines[1:])
    request = Request(method.decode(), origin_form(target.decode("latin-1")), int(minor), headers)
    _check_framing(request)
    return request


def origin_form(target: str) -> str:
    """The path and query of a target that may be a whole URL, as a server has to take it (RFC 9112, 3.2.2)."""
    if target.startswith("/"):
        return target
    found = _AUTHORITY.match(target)
    if found is None:
        return target
    path = target[found.end() :]
    return path if path.startswith("/") else f"/{path}"


def read_head(
    data: bytes, limit: int, parse: Callable[[bytes], Request] = parse_head
) -> tuple[Request, int] | None:
    """Read the head at the beginning of data: the request, and how many bytes it took. None: more must come.

    Raises HeadTooLarge past `limit` bytes, BadRequest where RFC 9112 is broken.
    """
    end = data.find(END, 0, limit + len(END))
    if end < 0:
        if len(data) > limit:
            raise HeadTooLarge(f"the head of the request is larger than {limit} bytes")
        _refuse_early(data)
        return None
    return parse(data[:end]), end + len(END)


def _refuse_early(data: bytes) -> None:
    """Refuse what can no longer become a request line, so that no stranger is waited for."""
    if _BARE_LF.search(data):
        raise BadRequest("a line of the head does not end with CR LF")
    if data and not 0x21 <= data[0] <= 0x7E:
        raise InvalidRequestLine("the first line is no HTTP/1.1 request line")


def _read_fields(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise BadRequest("a header line is malformed")
        name, value = match[1].decode().lower(), match[2].strip(b" \t").decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def is_field(line: bytes) -> bool:
    """Whether a line, without its end, is a field's."""
    return _FIELD.fullmatch(line) is not None


def _check_framing(request: Request) -> None:
    """Refuse what a proxy in front may read as another request than we do (RFC 9112, 3.2, 6.1 and 6.3).

    A header that came twice is a list here, and so is refused as well.
    """
    headers = request.headers
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if length is not None and not _LENGTH.fullmatch(length):
        raise BadRequest("Content-Length is not one number")
    if coding is not None:
        if length is not None or not request.minor:
            raise BadRequest("Transfer-Encoding together with Content-Length or HTTP/1.0")
        if coding.lower() != "chunked":
            raise BadRequest("the only Transfer-Encoding that is understood is 'chunked'")
    host = headers.get("host")
    if (host is None and request.minor) or (host is not None and "," in host):
        raise BadRequest("a request names one Host")


def accept(request: Request) -> bytes:
    """Make the answer that turns the connection into a WebSocket (RFC 6455, 4.2.2).

    Raises BadRequest, UnsupportedVersion.
    """
    headers = request.headers
    if request.method != "GET":
        raise BadRequest("a WebSocket handshake is a GET request")
    if not request.minor:
        raise HTTP11Required("a WebSocket handshake requires HTTP/1.1: a proxy may use HTTP/1.0")
    if request.body_size() != 0:
        raise BadRequest("a request that upgrades has no body")
    if "upgrade" not in _tokens(headers.get("connection", "")):
        raise ConnectionHeaderRequired(
            "the Connection header does not name Upgrade: a proxy may have removed it"
        )
    if headers.get("sec-websocket-version") != "13":
        raise UnsupportedVersion("this server speaks version 13 of the WebSocket protocol")
    key = headers.get("sec-websocket-key", "")
    if not _KEY.fullmatch(key):
        raise InvalidWebSocketKey("Sec-WebSocket-Key is not 16 bytes in base64")
    protocols = headers.get("sec-websocket-protocol")
    chosen = _CHOSEN if protocols is not None and PROTOCOL in _split(protocols) else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        + chosen
        + b"Sec-WebSocket-Accept: "
        + b64encode(sha1(key.encode() + MAGIC).digest())  # noqa: S324
        + END
    )


def instance_of(path: str) -> str:
    """Read the instance out of a path: what follows the first `~`, up to the next, without slashes.

    Raises BadRequest where the name is not UTF-8 in percent-encoding.
    """
    parts = path.split("~", 2)
    if len(parts) < 2:
        return DEFAULT_INSTANCE
    try:
        return unquote_to_bytes(parts[1].replace("/", "").encode("latin-1")).decode() or DEFAULT_INSTANCE
    except UnicodeDecodeError as error:
        raise BadRequest("the instance in the path is not UTF-8") from error


def instance_path(name: str) -> str:
    """Return the segment of a path, `~NAME/`, that `instance_of` reads as this name.

    `~` is an unreserved character (RFC 3986, 2.3), which `quote` leaves as it is: here it would end the name.
    """
    return f"~{quote(name, safe='').replace('~', '%7E')}/"


JSON = {"Content-Type": "application/json"}
# What no page of another origin may load, not even unread, as a script or an image (Fetch, 3.6 and 3.7).
PRIVATE = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}
NO_FIELDS: Mapping[str, str] = {}
# RFC 9110, 8.6: not with 204; the Content-Length of a 304 would be that of the 200 in its place.
WITHOUT_LENGTH = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


@lru_cache(1)  # of this second: making it takes longer than all else of an answer
def date(seconds: int) -> str:
    """A Unix time as `Date` has it (RFC 9110, 5.6.7)."""
    return formatdate(seconds, usegmt=True)


def head(status: int, fields: Mapping[str, str], last: str = "") -> bytes:
    """Make the head of an answer, with its `Date` (RFC 9110, 6.6.1); `last`: whole lines behind the fields."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    start = f"HTTP/1.1 {status} {responses[status]}\r\nDate: {date(int(time()))}\r\n"
    return f"{start}{lines}{last}\r\n".encode("latin-1")


def whole(status: int, fields: Mapping[str, str], body: bytes = b"", *, keep: bool) -> bytes:
    """Make an answer; `keep`: the connection may bear another request, which HTTP/1.0 has to read."""
    length = "" if status in WITHOUT_LENGTH else f"Content-Length: {len(body)}\r\n"
    connection = "keep-alive" if keep else "close"
    if "Upgrade" in fields:
        connection += ", Upgrade"  # RFC 9110, 7.8: it goes no further than the next proxy
    return head(status, fields, f"{length}Connection: {connection}\r\n") + body


def json(status: int, fields: Mapping[str, str], value: object, *, keep: bool) -> bytes:
    """Make an answer in JSON."""
    return whole(status, {**JSON, **PRIVATE, **fields}, encode(value), keep=keep)


def refusal(error: AphlictError) -> dict[str, object]:
    """The JSON of an error: `channels` only where some of several were refused."""
    return {
        "error": str(error),
        "code": error.code,
        **({"channels": error.channels} if error.channels else {}),
    }


def fields_of(error: AphlictError) -> dict[str, str]:
    """The fields of an answer that an error asks for."""
    fields: dict[str, str] = {}
    if isinstance(error, UnsupportedVersion):
        fields |= {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}  # RFC 9110, 15.5.22; RFC 6455, 4.4
    if error.retry_after is not None:
        fields["Retry-After"] = str(error.retry_after)
    if error.challenge is not None:
        fields["WWW-Authenticate"] = error.challenge
    return fields


def refuse(error: AphlictError, fields: Mapping[str, str] = NO_FIELDS, *, status: int | None = None) -> bytes:
    """Make the answer for an error, after which the connection is closed; `status`: another than the error's."""
    fields = {**fields_of(error), **fields}
    return json(status or error.http_status, fields, refusal(error), keep=False)


def without_body(answer: bytes) -> bytes:
    """What HEAD gets in the place of an answer (RFC 9110, 9.3.2)."""
    return answer[: answer.index(END) + len(END)]
