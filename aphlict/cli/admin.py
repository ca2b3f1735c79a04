"""Asking the admin server of this machine."""

import http.client
import json
import ssl
from typing import Any
from urllib.parse import quote

from aphlict.cli.configured import reachable
from aphlict.cli.console import reason
from aphlict.config.files import read_secrets
from aphlict.config.settings import ServerSettings, Settings
from aphlict.errors import AdminUnreachable, ConfigError
from aphlict.tls.context import add_client_certificate

TIMEOUT = 2.0  # seconds: what publishers wait


def ask(settings: Settings, method: str, path: str, instance: str | None, body: bytes | None = None) -> Any:
    """Send one request to the first admin server and return its JSON. Raises AdminUnreachable."""
    try:
        settings = read_secrets(settings)
    except ConfigError as error:
        raise AdminUnreachable(f"the admin server wants a secret: {error}") from error
    server = next(server for server in settings.servers if server.type == "admin")
    where = reachable(server)
    if instance is not None:
        path += f"?instance={quote(instance, safe='')}"
    connection = _connect(server)
    try:
        connection.request(method, path, body, _headers(server, body))
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException) as error:
        why = f"no answer within {TIMEOUT:g} s" if isinstance(error, TimeoutError) else reason(error)
        raise AdminUnreachable(f"the admin server at {where} does not answer: {why}") from error
    finally:
        connection.close()
    return _decode(where, answer.status, text)


def _connect(server: ServerSettings) -> http.client.HTTPConnection:
    where = reachable(server)
    if not server.tls:
        return http.client.HTTPConnection(where, timeout=TIMEOUT)
    return http.client.HTTPSConnection(where, timeout=TIMEOUT, context=context_for(server))


def _headers(server: ServerSettings, body: bytes | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json"} if body else {}
    if server.secrets:
        headers["Authorization"] = f"Bearer {server.secrets[0]}"
    return headers


def context_for(server: ServerSettings) -> ssl.SSLContext:
    """For this machine's own admin server; where it asks for a certificate, it is shown its own."""
    context = unverified()
    if server.ssl_ca and server.ssl_cert:
        add_client_certificate(context, server.ssl_cert, server.ssl_key)
    return context


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
        raise AdminUnreachable(f"the admin server at {where} answers {status}, and not with JSON") from error
    if status != 200:
        reason = answer.get("error") if isinstance(answer, dict) else None
        raise AdminUnreachable(f"the admin server at {where} answers {status}: {reason or text[:200]!r}")
    return answer
