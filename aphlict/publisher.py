"""Publishing from a backend: one POST, to whichever admin server answers."""

import asyncio
import http.client
import json
import random
import secrets
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from aphlict.errors import NoAnswer, PublishRefused

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
    within `timeout` seconds; `context` is for those with https, and `secret` is their `admin.secret`. The message
    bears a `uniqueID`, so that it is delivered once even where a server took it and could not say so. Raises
    PublishRefused where the message is at fault, NoAnswer where no server took it.
    """
    content = {"uniqueID": secrets.token_hex(16), **message}
    if subscribers is not None:
        content["subscribers"] = list(subscribers)
    body = json.dumps(content).encode()
    headers = {"Content-Type": "application/json"}
    if secret is not None:
        headers["Authorization"] = f"Bearer {secret}"
    deadline = time.monotonic() + timeout
    failures = []
    for left, server in zip(range(len(servers), 0, -1), random.sample(servers, len(servers)), strict=True):
        share = max(0.001, (deadline - time.monotonic()) / left)
        try:
            answer = _post(server, instance, body, headers, share, context)
        except (OSError, http.client.HTTPException, NoAnswer) as error:
            failures.append(f"{server}: {_why(error)}")
        else:
            return Receipt(
                answer["fingerprint"],
                answer.get("uniqueID", content["uniqueID"]),
                answer.get("matched"),
                answer.get("duplicate", False),
            )
    raise NoAnswer(f"no server took the message ({'; '.join(failures) or 'none is given'})")


async def publish_async(
    message: Mapping[str, Any], subscribers: Iterable[str] | None = None, **options: Any
) -> Receipt:
    """Publish as `publish` does, without blocking the loop: in a thread, which a cancelled caller leaves behind."""
    return await asyncio.to_thread(publish, message, subscribers, **options)


def _post(
    server: str,
    instance: str | None,
    body: bytes,
    headers: Mapping[str, str],
    timeout: float,
    context: ssl.SSLContext | None,
) -> dict[str, Any]:
    url = urlsplit(server)
    path = url.path or "/"
    if instance is not None:
        path += f"?instance={quote(instance, safe='')}"
    connection = _connect(url.scheme, url.netloc, timeout, context)
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return _read(response.status, response.read())
    finally:
        connection.close()


def _connect(
    scheme: str, place: str, timeout: float, context: ssl.SSLContext | None
) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(place, timeout=timeout, context=context)
    return http.client.HTTPConnection(place, timeout=timeout)


def _read(status: int, text: bytes) -> dict[str, Any]:
    """The answer's JSON. Raises PublishRefused where another server would refuse too, NoAnswer where it may not."""
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if status == http.client.OK and isinstance(answer, dict) and "fingerprint" in answer:
        return answer
    reason = answer.get("error") if isinstance(answer, dict) else None
    if status in (http.client.BAD_REQUEST, http.client.REQUEST_ENTITY_TOO_LARGE):
        raise PublishRefused(str(reason or "the server does not take the message"))
    raise NoAnswer(f"it answers {status}{f': {reason}' if reason else ''}")


def _why(error: Exception) -> str:
    """In words, without the number of an error."""
    words = error.strerror if isinstance(error, OSError) else None
    return words or str(error) or type(error).__name__
