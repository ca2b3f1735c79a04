"""HTTP/1.1: request heads, parsed strictly; responses, the WebSocket handshake, and errors as responses."""

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import lru_cache
from hashlib import sha1
from http import HTTPStatus
from http.client import responses
from time import time
from urllib.parse import parse_qs, quote, unquote, unquote_to_bytes

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
    MethodNotAllowed,
    UnsupportedVersion,
)

HEAD_END = b"\r\n\r\n"
ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
DEFAULT_INSTANCE = "default"
ORIGIN_FIELD = (
    "X-Aphlict-Origin"  # of a request from another node: its origin, a number and an age, see `Greeting`
)
NODE_FIELD = "X-Aphlict-Node"  # the fingerprint of the node that sends a request
MAX_QUERY_FIELDS = 4096
SUBPROTOCOL = "aphlict"  # selected if a client offers it
TOKEN_PREFIX = "token."  # noqa: S105 -- of a subprotocol that carries a token
_SELECTED = f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n".encode()

_START = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~\x80-\xff]+) HTTP/1\.([01])(?=\r\n|\Z)")
# RFC 9112, 5: a token, a colon without a space before it, and a value on the same line. Spaces around the value
# are removed by `strip`: matched by the pattern, they would cause quadratic backtracking.
_FIELD = re.compile(r"\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
_FIELDS = re.compile(r"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*)*")
_AUTHORITY = re.compile(r"https?://[^/?#]*(?=/|\?|$)", re.IGNORECASE)
_BARE_LF = re.compile(rb"(?<!\r)\n")
_LENGTH = re.compile(r"[0-9]{1,18}")
_TOKEN = re.compile(r"[?&]token=([^&]*)")
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")


class Request(Struct, frozen=True):
    """The head of an HTTP request; the names in `headers` are lower-case, repeated ones joined with a comma.

    `body_size` is in bytes; None for a chunked body.
    """

    method: str
    target: str
    minor: int  # HTTP/1.minor
    headers: dict[str, str]
    body_size: int | None = 0

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def wants_websocket(self) -> bool:
        """Whether `Upgrade` contains `websocket` (RFC 6455, 4.2.1)."""
        upgrade = self.headers.get("upgrade")
        return upgrade is not None and _has_token(upgrade, "websocket")

    def token(self) -> str | None:
        """Return the token from Authorization (RFC 6750), a subprotocol or the query, in this order."""
        scheme, _, credentials = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return credentials.strip()
        for protocol in _split(self.headers.get("sec-websocket-protocol", "")):
            if protocol.startswith(TOKEN_PREFIX):
                return protocol.removeprefix(TOKEN_PREFIX)
        found = _TOKEN.search(self.target)
        return None if found is None else unquote(found[1])

    def keeps_alive(self) -> bool:
        """Whether the connection is persistent (RFC 9112, 9.3)."""
        said = self.headers.get("connection")
        if said is None:
            return bool(self.minor)
        return _has_token(said, "keep-alive") if self.minor == 0 else not _has_token(said, "close")


def _has_token(value: str, token: str) -> bool:
    """Whether a list of tokens contains one, which is lower-case."""
    lowered = value.lower()
    return lowered == token or token in _split(lowered)


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",")]


def parse_head(head: bytes) -> Request:
    """Parse a complete head, without the empty line at its end. Raises BadRequest for a violation of RFC 9112."""
    text = head.decode("latin-1")
    start = _START.match(text)
    if start is None:
        raise InvalidRequestLine("the first line is not an HTTP/1.1 request line")
    method, target, minor = start.groups()
    headers = _parse_fields(text[start.end() :])
    return Request(method, origin_form(target), int(minor), headers, _parse_body_size(headers, minor))


def origin_form(target: str) -> str:
    """Return path and query of a target, which may be a complete URL (RFC 9112, 3.2.2)."""
    if target.startswith("/"):
        return target
    found = _AUTHORITY.match(target)
    if found is None:
        return target
    path = target[found.end() :]
    return path if path.startswith("/") else f"/{path}"


def parse_request(
    data: bytes, limit: int, parse: Callable[[bytes], Request] = parse_head
) -> tuple[Request, int] | None:
    """Parse the head at the start of data: return the request and the size of the head; None while it is incomplete.

    Raises HeadTooLarge for more than `limit` bytes, BadRequest for a violation of RFC 9112.
    """
    end = data.find(HEAD_END, 0, limit + len(HEAD_END))
    if end < 0:
        if len(data) > limit:
            raise HeadTooLarge(f"the head of the request is larger than {limit} bytes")
        _reject_early(data)
        return None
    return parse(data[:end]), end + len(HEAD_END)


def _reject_early(data: bytes) -> None:
    """Reject data that cannot become a request, without waiting for the rest of a head."""
    if _BARE_LF.search(data):
        raise BadRequest("a line of the head does not end with CR LF")
    if data and not 0x21 <= data[0] <= 0x7E:
        raise InvalidRequestLine("the first line is not an HTTP/1.1 request line")


def _parse_fields(text: str) -> dict[str, str]:
    """Parse header fields, each after CR LF. Two passes of `re` over all of them are faster than a match for each."""
    if _FIELDS.fullmatch(text) is None:
        raise BadRequest("a header line is malformed")
    headers: dict[str, str] = {}
    for name, value in _FIELD.findall(text):
        key, part = name.lower(), value.strip(" \t")
        headers[key] = f"{headers[key]}, {part}" if key in headers else part
    return headers


def is_field(line: bytes) -> bool:
    """Whether a line, without CR LF, is a header field."""
    return _FIELD.fullmatch(f"\r\n{line.decode('latin-1')}") is not None


def _parse_body_size(headers: dict[str, str], minor: str) -> int | None:
    """Return the size of the body; None for a chunked one.

    Raises BadRequest for framing that a proxy may interpret differently: request smuggling (RFC 9112, 3.2, 6.1, 6.3
    and 11.2). A repeated header is a list here, and so rejected as well.
    """
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if length is not None and not _LENGTH.fullmatch(length):
        raise BadRequest("Content-Length is not one number of at most 18 digits")
    if coding is not None:
        if length is not None or minor == "0":
            raise BadRequest("Transfer-Encoding together with Content-Length or HTTP/1.0")
        if coding.lower() != "chunked":
            raise BadRequest("the only supported Transfer-Encoding is 'chunked'")
    host = headers.get("host")
    if (host is None and minor == "1") or (host is not None and "," in host):
        raise BadRequest("a request must have exactly one Host")
    return None if coding is not None else int(length or 0)


def accept_response(request: Request) -> bytes:
    """Encode the response that completes the WebSocket handshake (RFC 6455, 4.2.2).

    Raises BadRequest, UnsupportedVersion.
    """
    headers = request.headers
    if request.method != "GET":
        raise BadRequest("a WebSocket handshake is a GET request")
    if not request.minor:
        raise HTTP11Required("a WebSocket handshake requires HTTP/1.1: a proxy may use HTTP/1.0")
    if request.body_size != 0:
        raise BadRequest("a request that upgrades has no body")
    if not _has_token(headers.get("connection", ""), "upgrade"):
        raise ConnectionHeaderRequired(
            "the Connection header does not contain Upgrade: a proxy may have removed it"
        )
    if headers.get("sec-websocket-version") != "13":
        raise UnsupportedVersion("this server supports version 13 of the WebSocket protocol only")
    key = headers.get("sec-websocket-key", "")
    if not _KEY.fullmatch(key):
        raise InvalidWebSocketKey("Sec-WebSocket-Key is not 16 bytes in base64")
    protocols = headers.get("sec-websocket-protocol")
    chosen = _SELECTED if protocols is not None and SUBPROTOCOL in _split(protocols) else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        + chosen
        + b"Sec-WebSocket-Accept: "
        + b64encode(sha1(key.encode() + ACCEPT_GUID).digest())  # noqa: S324
        + HEAD_END
    )


def instance_from_path(path: str) -> str:
    """Return the instance in a path: what follows the first `~` up to the next, without slashes.

    Raises BadRequest where the name is not UTF-8 in percent-encoding.
    """
    parts = path.split("~", 2)
    if len(parts) < 2:
        return DEFAULT_INSTANCE
    try:
        return unquote_to_bytes(parts[1].replace("/", "").encode("latin-1")).decode() or DEFAULT_INSTANCE
    except UnicodeDecodeError as error:
        raise BadRequest("the instance in the path is not UTF-8 in percent-encoding") from error


def instance_path(name: str) -> str:
    """Return the path segment `~NAME/` from which `instance_from_path` returns this name.

    `~` is an unreserved character (RFC 3986, 2.3), which `quote` does not escape: here it would end the name.
    """
    return f"~{quote(name, safe='').replace('~', '%7E')}/"


def parse_query(query: str) -> dict[str, list[str]]:
    """Parse the query of a target as it was received. Raises BadRequest."""
    if not query:
        return {}
    try:
        text = query.encode("latin-1").decode()  # UTF-8 may come without percent-encoding
        return parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError as error:
        raise BadRequest("the query is not UTF-8 in percent-encoding, or too long") from error


JSON = {"Content-Type": "application/json"}
# Keeps pages of other origins from loading a response as a script or an image (Fetch, 3.6 and 3.7).
PRIVATE = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}
NO_FIELDS: Mapping[str, str] = {}
NO_MEMBERS: Mapping[str, object] = {}
# RFC 9110, 8.6: not with 204; the Content-Length of a 304 would be that of the 200 in its place.
WITHOUT_LENGTH = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


@lru_cache(1)  # formatting the date takes longer than the rest of a response
def date(seconds: int) -> str:
    """Return a Unix time in the format of `Date` (RFC 9110, 5.6.7)."""
    return formatdate(seconds, usegmt=True)


def response_head(status: int, fields: Mapping[str, str], framing: str = "") -> bytes:
    """Encode the head of a response, with `Date` (RFC 9110, 6.6.1). `framing`: complete lines to add to `fields`."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    start = f"HTTP/1.1 {status} {responses[status]}\r\nDate: {date(int(time()))}\r\n"
    return f"{start}{lines}{framing}\r\n".encode("latin-1")


def response(
    status: int, fields: Mapping[str, str], body: bytes = b"", *, keep_alive: bool, is_head: bool = False
) -> bytes:
    """Encode a response. `is_head`: to a HEAD request, so without the body, but with its length (RFC 9110, 9.3.2)."""
    length = "" if status in WITHOUT_LENGTH else f"Content-Length: {len(body)}\r\n"
    connection = "keep-alive" if keep_alive else "close"  # HTTP/1.0 clients need `keep-alive`
    if "Upgrade" in fields:
        connection += ", Upgrade"  # RFC 9110, 7.8: keeps a proxy from forwarding the field
    head = response_head(status, fields, f"{length}Connection: {connection}\r\n")
    return head if is_head else head + body


def error_body(error: AphlictError) -> dict[str, object]:
    """Return the JSON members that describe an error; `channels` only where some of several were refused."""
    body: dict[str, object] = {"error": str(error), "code": error.code}
    if error.channels:
        body["channels"] = error.channels
    return body


def error_fields(error: AphlictError) -> dict[str, str]:
    """Return the header fields that belong to an error."""
    fields: dict[str, str] = {}
    if isinstance(error, UnsupportedVersion):
        fields |= {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}  # RFC 9110, 15.5.22; RFC 6455, 4.4
    if isinstance(error, MethodNotAllowed):
        fields["Allow"] = error.allowed
    if error.retry_after is not None:
        fields["Retry-After"] = str(error.retry_after)
    if error.challenges:  # a line for each: a browser may take a comma for a part of the first one
        fields["WWW-Authenticate"] = "\r\nWWW-Authenticate: ".join(error.challenges)
    return fields


def error_response(
    error: AphlictError,
    fields: Mapping[str, str] = NO_FIELDS,
    members: Mapping[str, object] = NO_MEMBERS,
    *,
    keep_alive: bool = False,
    is_head: bool = False,
) -> bytes:
    """Encode the response to a request that failed. Without `keep_alive` the caller closes the connection after it.

    `members` are more members of the JSON object. This is the only place that turns an error into a response.
    """
    body = encode({**error_body(error), **members})
    fields = {**JSON, **error_fields(error), **PRIVATE, **fields}
    return response(error.http_status, fields, body, keep_alive=keep_alive, is_head=is_head)
