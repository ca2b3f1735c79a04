"""Publishing from a backend: one POST, to whichever admin server answers."""

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
TIMEOUT = 2.0  # seconds


class Receipt(NamedTuple):
    """What a server says of a message that it took; one of the Node.js implementation says only who it is."""

    fingerprint: str
    unique_id: str
    matched: int | None  # local connections that it goes to
    duplicate: bool


def publish(
    message: Mapping[str, Any],
    subscribers: Iterable[str] | None = None,
    *,
    servers: Sequence[str] = LOCAL_SERVER,
    instance: str | None = None,
    timeout: float = TIMEOUT,
    context: ssl.SSLContext | None = None,
    secret: str | None = None,
) -> Receipt:
    """Publish a message to these channels, or to those that its own `subscribers` name.

    `servers` are the URLs of admin servers that are tried in random order until one has taken the message, all
    within `timeout` seconds, but for looking up their names; `context` is for those with https, and `secret` is
    their `admin.secret`. The message bears a `uniqueID`, so that it is delivered once even where a server took it
    and could not confirm it. Raises InvalidMessage for an invalid message, PublishFailed if no server accepts it, and
    TypeError for text where a list is expected.
    """
    _refuse_text("servers", servers)
    content = _content(message, subscribers)
    body = json.dumps(content).encode()
    headers = {"Content-Type": "application/json"}
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    deadline = time.monotonic() + timeout
    failures = []
    for left, server in zip(range(len(servers), 0, -1), random.sample(servers, len(servers)), strict=True):
        try:
            answer = _post(server, instance, body, headers, _share(deadline, left), context)
        except (OSError, http.client.HTTPException, PublishFailed) as error:
            failures.append(f"{server}: {_why(error)}")
        else:
            return Receipt(
                answer["fingerprint"],
                answer.get("uniqueID", content["uniqueID"]),
                answer.get("matched"),
                answer.get("duplicate", False),
            )
    raise PublishFailed(f"no server took the message ({'; '.join(failures) or 'none is given'})")


async def publish_async(
    message: Mapping[str, Any], subscribers: Iterable[str] | None = None, **options: Any
) -> Receipt:
    """Publish as `publish` does, without blocking the loop: in a thread, which a cancelled caller leaves behind."""
    return await asyncio.to_thread(publish, message, subscribers, **options)


def _content(message: Mapping[str, Any], subscribers: Iterable[str] | None) -> dict[str, Any]:
    """Return the object that is sent. Raises TypeError."""
    content = {"uniqueID": None, **message}
    if content["uniqueID"] in (None, ""):
        content["uniqueID"] = secrets.token_hex(16)
    _refuse_text("subscribers", content.get("subscribers") if subscribers is None else subscribers)
    if subscribers is not None:
        content["subscribers"] = list(subscribers)
    return content


def _refuse_text(parameter: str, value: object) -> None:
    """Raise TypeError for text: it is a sequence too, of letters."""
    if isinstance(value, str | bytes | bytearray):
        raise TypeError(f"{parameter} is {type(value).__name__}, expected a list of str")


def _post(
    server: str,
    instance: str | None,
    body: bytes,
    headers: Mapping[str, str],
    deadline: float,
    context: ssl.SSLContext | None,
) -> dict[str, Any]:
    url = urlsplit(server)
    path = url.path or "/"
    if instance is not None:
        path += f"?instance={quote(instance, safe='')}"
    connection = _connect(url, deadline, context)
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return _read(response.status, response.read())
    finally:
        connection.close()


def _connect(url: SplitResult, deadline: float, context: ssl.SSLContext | None) -> http.client.HTTPConnection:
    """Connect, and have all that is sent and received on the connection end by the deadline."""
    if url.scheme == "https":
        context = context or ssl.create_default_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(url.netloc, context=context)
    else:
        context, connection = None, http.client.HTTPConnection(url.netloc)
    sock = _dial(connection.host, connection.port, deadline)
    if context is not None:
        sock = _secure(sock, connection.host, deadline, context)
    connection.sock = cast("socket.socket", _Socket(sock, deadline))
    return connection


def _secure(sock: socket.socket, host: str, deadline: float, context: ssl.SSLContext) -> ssl.SSLSocket:
    try:
        sock.settimeout(_left(deadline))
        return context.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


def _dial(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to one of the addresses that a name has; each is given its share of the time."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure = OSError(f"{host} has no address")
    for left, (family, kind, protocol, _, address) in zip(
        range(len(addresses), 0, -1), addresses, strict=True
    ):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(_share(deadline, left)))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _share(deadline: float, parts: int) -> float:
    """When the first of several parts of the time that is left ends."""
    now = time.monotonic()
    return now + (deadline - now) / parts


def _left(deadline: float) -> float:
    """Seconds that are left. Raises TimeoutError where there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class _Socket:
    """As much of a socket as http.client uses; past the deadline it raises, however little comes at a time."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_left(self._deadline))
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Received(self._sock, self._deadline))

    def close(self) -> None:
        self._sock.close()


class _Received(io.RawIOBase):
    """What a socket receives until the deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline
        self._stream = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._deadline))
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _read(status: int, text: bytes) -> dict[str, Any]:
    """The JSON of a response. Raises InvalidMessage if every server would reject it, else PublishFailed."""
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if status == http.client.OK and isinstance(answer, dict) and "fingerprint" in answer:
        return answer
    reason = answer.get("error") if isinstance(answer, dict) else None
    if status in (http.client.BAD_REQUEST, http.client.REQUEST_ENTITY_TOO_LARGE):
        raise InvalidMessage(str(reason or "the server does not take the message"))
    raise PublishFailed(f"it answers {status}{f': {reason}' if reason else ''}")


def _why(error: Exception) -> str:
    """In words, without the number of an error."""
    words = error.strerror if isinstance(error, OSError) else None
    return words or str(error) or type(error).__name__
