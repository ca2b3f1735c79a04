"""HTTP request heads, valid and invalid."""

from typing import NamedTuple

BROWSER = {
    "Host": "notify.example.com",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Origin": "https://example.com",
}
"""The headers of a browser; the key is that of RFC 6455, 1.3."""


def head(start: str = "GET /ws/ HTTP/1.1", headers: dict[str, str] | None = None, **more: str) -> bytes:
    """A head with these headers (those of a browser by default); `more` changes some, with `_` for `-`."""
    fields = {**(BROWSER if headers is None else headers)}
    for name, value in more.items():
        fields[name.replace("_", "-").title().replace("Websocket", "WebSocket")] = value
    lines = [start, *(f"{name}: {value}" for name, value in fields.items())]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"


class Malformed(NamedTuple):
    """An invalid request, and the status of the response."""

    name: str
    data: bytes
    status: int = 400

    def __str__(self) -> str:
        return self.name


def _post(*lines: bytes, body: bytes = b"{}") -> bytes:
    return b"\r\n".join((b"POST / HTTP/1.1", *lines, b"", body))


def _with_size(*lines: bytes) -> bytes:
    return _post(b"Host: x", *lines, b"Content-Length: 2")


_CHUNKED = b"2\r\n{}\r\n0\r\n\r\n"

# Each of these has been used for request smuggling: two servers parse the same bytes as different requests.
MALFORMED = (
    Malformed("a bare CR in a value", _with_size(b"X: a\rY: b")),
    Malformed("a bare CR in a name", _with_size(b"A\rB: c")),
    Malformed("LF only", b"POST / HTTP/1.1\nHost: x\nContent-Length: 2\n\n{}"),
    Malformed("LF only after one line", b"POST / HTTP/1.1\r\nHost: x\nContent-Length: 2\r\n\r\n{}"),
    Malformed("LF only after the last line", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\n\r\n{}"),
    Malformed("LF only at the end", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\n{}"),
    Malformed("a space before the colon", _post(b"Host: x", b"Content-Length : 2")),
    Malformed("a tab before the colon", _post(b"Host: x", b"Content-Length\t: 2")),
    Malformed("two lengths", _with_size(b"Content-Length: 2")),
    Malformed("two lengths that differ", _with_size(b"Content-Length: 3")),
    Malformed("a list of lengths", _post(b"Host: x", b"Content-Length: 2, 2")),
    Malformed("a length with a sign", _post(b"Host: x", b"Content-Length: +2")),
    Malformed("a negative length", _post(b"Host: x", b"Content-Length: -2")),
    Malformed("a length with an underscore", _post(b"Host: x", b"Content-Length: 0_2")),
    Malformed("a length that is a word", _post(b"Host: x", b"Content-Length: two")),
    Malformed("a length in hexadecimal", _post(b"Host: x", b"Content-Length: 0x2")),
    Malformed("a length in other digits", _post(b"Host: x", b"Content-Length: \xb2")),
    Malformed("an empty length", _post(b"Host: x", b"Content-Length:")),
    Malformed("an endless length", _post(b"Host: x", b"Content-Length: " + b"9" * 5000)),
    Malformed("length and chunked", _with_size(b"Transfer-Encoding: chunked")),
    Malformed("chunked twice", _post(b"Host: x", *[b"Transfer-Encoding: chunked"] * 2, body=_CHUNKED)),
    Malformed("an unknown coding", _post(b"Host: x", b"Transfer-Encoding: xchunked", body=_CHUNKED)),
    Malformed("a hidden chunked", _post(b"Host: x", b"Transfer-Encoding: \x0bchunked", body=_CHUNKED)),
    Malformed("a second coding", _post(b"Host: x", b"Transfer-Encoding: gzip, chunked", body=_CHUNKED)),
    Malformed(
        "chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNKED
    ),
    Malformed("a folded line", _with_size(b"X: a", b" b")),
    Malformed("a folded first line", b"POST / HTTP/1.1\r\n Host: x\r\nContent-Length: 2\r\n\r\n{}"),
    Malformed("a NUL in a value", _with_size(b"X: a\x00b")),
    Malformed("a NUL in the path", b"POST /\x00 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"),
    Malformed("a control character", _with_size(b"X: a\x1bb")),
    Malformed("no Host", _post(b"Content-Length: 2")),
    Malformed("two Hosts", _with_size(b"Host: y")),
    Malformed("two spaces", b"POST  / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"),
    Malformed("tabs for spaces", b"POST\t/\tHTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"),
    Malformed("no version", b"POST /\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"),
    Malformed("a small version", b"POST / http/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"),
    Malformed("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Malformed("HTTP/1.2", b"POST / HTTP/1.2\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"),
    Malformed("no name", _with_size(b": x")),
    Malformed("no colon", _with_size(b"Authorization")),
    Malformed("an empty line first", b"\r\n" + _with_size()),
    Malformed("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50)),
    Malformed("a head that is too large", _with_size(b"X: " + b"x" * 9000), 431),
)
