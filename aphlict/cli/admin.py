"""Asking the admin server of this machine."""

import http.client
import json
import ssl
from typing import Any
from urllib.parse import quote

from aphlict.cli.configured import reachable
from aphlict.cli.console import reason
from aphlict.config.settings import Settings
from aphlict.errors import NoAnswer

TIMEOUT = 2.0  # seconds: what publishers wait


def ask(settings: Settings, method: str, path: str, instance: str | None, body: bytes | None = None) -> Any:
    """Send one request to the first admin server and return its JSON. Raises NoAnswer."""
    server = next(server for server in settings.servers if server.type == "admin")
    where = reachable(server)
    if instance is not None:
        path += f"?instance={quote(instance, safe='')}"
    connection = _connect(where, tls=server.tls)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException) as error:
        why = f"no answer within {TIMEOUT:g} s" if isinstance(error, TimeoutError) else reason(error)
        raise NoAnswer(f"the admin server at {where} does not answer: {why}") from error
    finally:
        connection.close()
    return _decode(where, answer.status, text)


def _connect(where: str, *, tls: bool) -> http.client.HTTPConnection:
    if not tls:
        return http.client.HTTPConnection(where, timeout=TIMEOUT)
    return http.client.HTTPSConnection(where, timeout=TIMEOUT, context=unverified())


def unverified() -> ssl.SSLContext:
    """For this machine's own server: its certificate has the public name, not 127.0.0.1."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _decode(where: str, status: int, text: bytes) -> Any:
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise NoAnswer(f"the admin server at {where} answers {status}, and not with JSON") from error
    if status != 200:
        reason = answer.get("error") if isinstance(answer, dict) else None
        raise NoAnswer(f"the admin server at {where} answers {status}: {reason or text[:200]!r}")
    return answer
