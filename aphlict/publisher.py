"""Publish from a backend: one POST to the first admin server that accepts it."""

import asyncio
import http.client
import io
import json
import random
import secrets
import socket
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast
from urllib.parse import SplitResult, quote, urlsplit

from aphlict.errors import InvalidMessage, PublishFailed

LOCAL_SERVER = ("http://127.0.0.1:22281/",)
TIMEOUT_SECONDS = 2.0


class Receipt(NamedTuple):
    """The response to a published message. A Node.js server sends only its `fingerprint`."""

    fingerprint: str  # of the node
    unique_id: str
    matched: int | None  # connections of that node that receive the message
    duplicate: bool  # the node already had a message with this uniqueID


def publish(
    message: Mapping[str, Any],
    subscribers: Iterable[str] | None = None,
    *,
    servers: Sequence[str] = LOCAL_SERVER,
    instance: str | None = None,
    timeout: float = TIMEOUT_SECONDS,
    ssl_context: ssl.SSLContext | None = None,
    secret: str | None = None,
) -> Receipt:
    """Publish a message to `subscribers`, or to the channels in the message's own `subscribers`.

    The `servers` (URLs of admin servers) are tried in random order until one accepts the message. `timeout` is in
    seconds and covers all of them, except for the resolution of host names. `ssl_context` is used for https URLs;
    `secret` is the servers' `admin.secret`. A message without a `uniqueID` gets one before it is sent, so it is
    delivered once even if a server accepted it and its response was lost.

    Raises InvalidMessage if a server reports that the message is invalid, and PublishFailed if no server accepts it;
    the `code` of both is that of the server's response. Raises TypeError for a string in the place of a list.
    """
    _reject_string("servers", servers)
    content = _content(message, subscribers)
    body = json.dumps(content).encode()
    headers = {"Content-Type": "application/json"}
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    deadline = time.monotonic() + timeout
    failures, code = [], None
    for left, server in zip(range(len(servers), 0, -1), random.sample(servers, len(servers)), strict=True):
        try:
            response = _post(server, instance, body, headers, _share(deadline, left), ssl_context)
        except PublishFailed as error:
            failures.append(f"{server}: {error}")
            code = error.code
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{server}: {_reason(error)}")
        else:
            return _receipt(response, content["uniqueID"])
    reasons = "; ".join(failures) or "`servers` is empty"
    raise PublishFailed(f"no server accepted the message ({reasons})", code=code)


async def publish_async(
    message: Mapping[str, Any], subscribers: Iterable[str] | None = None, **options: Any
) -> Receipt:
    """Call `publish` in a thread. Cancelling the coroutine does not stop the thread."""
    return await asyncio.to_thread(publish, message, subscribers, **options)


def _content(message: Mapping[str, Any], subscribers: Iterable[str] | None) -> dict[str, Any]:
    """Return the object to send. Raises TypeError."""
    content = {"uniqueID": None, **message}
    if content["uniqueID"] in (None, ""):
        content["uniqueID"] = secrets.token_hex(16)
    _reject_string("subscribers", content.get("subscribers") if subscribers is None else subscribers)
    if subscribers is not None:
        content["subscribers"] = list(subscribers)
    return content


def _reject_string(parameter: str, value: object) -> None:
    """Raise TypeError for a string, which would be taken for a sequence of characters."""
    if isinstance(value, str | bytes | bytearray):
        raise TypeError(f"{parameter} is {type(value).__name__}, expected a list of str")


def _post(
    server: str,
    instance: str | None,
    body: bytes,
    headers: Mapping[str, str],
    deadline: float,
    ssl_context: ssl.SSLContext | None,
) -> dict[str, Any]:
    """Return the receipt. Raises OSError, HTTPException, InvalidMessage or PublishFailed."""
    url = urlsplit(server)
    path = url.path or "/"
    if instance is not None:
        path += f"?instance={quote(instance, safe='')}"
    connection = _open_connection(url, deadline, ssl_context)
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return _parse_response(response.status, response.read())
    finally:
        connection.close()


def _open_connection(
    url: SplitResult, deadline: float, ssl_context: ssl.SSLContext | None
) -> http.client.HTTPConnection:
    """Connect. All reads and writes on the connection raise TimeoutError after the deadline."""
    if url.scheme == "https":
        ssl_context = ssl_context or ssl.create_default_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(url.netloc, context=ssl_context)
    else:
        ssl_context, connection = None, http.client.HTTPConnection(url.netloc)
    sock = _connect(connection.host, connection.port, deadline)
    if ssl_context is not None:
        sock = _start_tls(sock, connection.host, deadline, ssl_context)
    connection.sock = cast("socket.socket", _DeadlineSocket(sock, deadline))
    return connection


def _start_tls(sock: socket.socket, host: str, deadline: float, context: ssl.SSLContext) -> ssl.SSLSocket:
    try:
        sock.settimeout(_remaining(deadline))
        return context.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address of a host that accepts; each gets an equal share of the remaining time."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure = OSError(f"{host} has no address")
    for left, (family, kind, protocol, _, address) in zip(
        range(len(addresses), 0, -1), addresses, strict=True
    ):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_remaining(_share(deadline, left)))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _share(deadline: float, parts: int) -> float:
    """Return the end of the first of `parts` equal parts of the remaining time."""
    now = time.monotonic()
    return now + (deadline - now) / parts


def _remaining(deadline: float) -> float:
    """Return the remaining seconds. Raises TimeoutError if there are none."""
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("timed out")
    return remaining


class _DeadlineSocket:
    """The methods of a socket that http.client calls, with one deadline for all of them.

    A socket's own timeout applies to each call, so a server that sends a byte at a time would never exceed it.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_remaining(self._deadline))
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._sock, self._deadline))

    def close(self) -> None:
        self._sock.close()


class _DeadlineReader(io.RawIOBase):
    """The bytes that a socket receives before the deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline
        self._stream = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_remaining(self._deadline))
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _parse_response(status: int, body: bytes) -> dict[str, Any]:
    """Return the receipt. Raises InvalidMessage if any server would reject the message, else PublishFailed."""
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    fields = content if isinstance(content, dict) else {}
    if status == http.client.OK and "fingerprint" in fields:
        return fields
    sentence, code = fields.get("error"), fields.get("code")
    if status in (http.client.BAD_REQUEST, http.client.REQUEST_ENTITY_TOO_LARGE):
        raise InvalidMessage(str(sentence or "the server rejected the message"), code=code)
    raise PublishFailed(f"HTTP status {status}{f': {sentence}' if sentence else ''}", code=code)


def _receipt(response: dict[str, Any], unique_id: str) -> Receipt:
    return Receipt(
        response["fingerprint"],
        response.get("uniqueID", unique_id),
        response.get("matched"),
        response.get("duplicate", False),
    )


def _reason(error: Exception) -> str:
    """Return the text of an error without its number."""
    text = error.strerror if isinstance(error, OSError) else None
    return text or str(error) or type(error).__name__
