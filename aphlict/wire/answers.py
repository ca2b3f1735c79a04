"""Answers to plain HTTP requests, as bytes."""

from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from http.client import responses
from time import time

from msgspec.json import encode

from aphlict.errors import AphlictError, UnknownVersion

END = b"\r\n\r\n"
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
    """What the body of an answer says of an error: `channels` only where some of several were refused."""
    return {"error": str(error), **({"channels": error.channels} if error.channels else {})}


def fields_of(error: AphlictError) -> dict[str, str]:
    """The fields of an answer that an error asks for."""
    fields: dict[str, str] = {}
    if isinstance(error, UnknownVersion):
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
