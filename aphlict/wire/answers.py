"""Answers to plain HTTP requests, as bytes."""

from collections.abc import Mapping
from http import HTTPStatus

from msgspec.json import encode

from aphlict.errors import AphlictError, UnknownVersion

END = b"\r\n\r\n"
JSON = {"Content-Type": "application/json"}
NO_FIELDS: Mapping[str, str] = {}
WITHOUT_LENGTH = (
    HTTPStatus.NO_CONTENT,
    HTTPStatus.NOT_MODIFIED,
)  # RFC 9110, 8.6; of a 304 it would be the 200's


def head(status: int, fields: Mapping[str, str]) -> bytes:
    """Make the head of an answer."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}\r\n".encode("latin-1")


def whole(status: int, fields: Mapping[str, str], body: bytes = b"", *, keep: bool) -> bytes:
    """Make an answer; `keep`: the connection may bear another request."""
    length = {} if status in WITHOUT_LENGTH else {"Content-Length": str(len(body))}
    return head(status, {**length, **fields, "Connection": "keep-alive" if keep else "close"}) + body


def json(status: int, fields: Mapping[str, str], value: object, *, keep: bool) -> bytes:
    """Make an answer in JSON."""
    return whole(status, {**JSON, **fields}, encode(value), keep=keep)


def refusal(error: AphlictError) -> dict[str, object]:
    """What the body of an answer says of an error: `channels` only where some of several were refused."""
    return {"error": str(error), **({"channels": error.channels} if error.channels else {})}


def fields_of(error: AphlictError) -> dict[str, str]:
    """The fields of an answer that an error asks for."""
    fields = {}
    if isinstance(error, UnknownVersion):
        fields["Sec-WebSocket-Version"] = "13"
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
