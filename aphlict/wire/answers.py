"""Answers to plain HTTP requests, as bytes."""

from collections.abc import Mapping
from http import HTTPStatus

from msgspec.json import encode

from aphlict.errors import AphlictError

END = b"\r\n\r\n"
JSON = {"Content-Type": "application/json"}


def head(status: int, fields: Mapping[str, str]) -> bytes:
    """Make the head of an answer."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}\r\n".encode("latin-1")


def whole(status: int, fields: Mapping[str, str], body: bytes = b"", *, keep: bool) -> bytes:
    """Make an answer; `keep`: the connection may bear another request."""
    connection = "keep-alive" if keep else "close"
    return head(status, {**fields, "Content-Length": str(len(body)), "Connection": connection}) + body


def json(status: int, fields: Mapping[str, str], value: object, *, keep: bool) -> bytes:
    """Make an answer in JSON."""
    return whole(status, {**JSON, **fields}, encode(value), keep=keep)


def refusal(error: AphlictError) -> dict[str, object]:
    """What the body of an answer says of an error: `channels` only where some of several were refused."""
    return {"error": str(error), **({"channels": error.channels} if error.channels else {})}


def without_body(answer: bytes) -> bytes:
    """What HEAD gets in the place of an answer (RFC 9110, 9.3.2)."""
    return answer[: answer.index(END) + len(END)]
