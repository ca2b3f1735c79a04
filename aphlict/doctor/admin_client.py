"""An HTTP client for admin servers: this node's own, or a peer's."""

import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aphlict.config.files import read_secrets
from aphlict.config.settings import PeerSettings, Settings
from aphlict.doctor.connector import TIMEOUT_SECONDS, Response, read_response, send_request
from aphlict.doctor.target import connect_address
from aphlict.errors import AdminUnreachable
from aphlict.protocol.addresses import host_port, url_host
from aphlict.tls.ssl_context import add_client_certificate, client_context, unverified_context

COMMAND_TIMEOUT_SECONDS = 2.0  # what publishers wait


@dataclass(frozen=True)
class AdminClient:
    """Sends requests to one admin server, each on a connection of its own. Without `tls` they are plain HTTP."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    secret: str | None = None

    @property
    def url(self) -> str:
        """The URL without a path."""
        return f"{'https' if self.tls else 'http'}://{host_port(self.host, self.port)}"

    def request(
        self, method: str, path: str, body: bytes = b"", *, timeout: float = TIMEOUT_SECONDS
    ) -> Response:
        """Send one request. Raises OSError."""
        headers = {"Host": url_host(self.host), "Connection": "close", "Content-Length": str(len(body))}
        if body:
            headers["Content-Type"] = "application/json"
        if self.secret is not None:
            headers["Authorization"] = f"Bearer {self.secret}"
        sock = socket.create_connection((self.host, self.port), timeout)
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_hostname=self.host)
            return read_response(send_request(sock, method, path, headers, body))
        finally:
            sock.close()

    def publish(self, instance: str, message: dict[str, Any]) -> Response:
        """Publish one message. Raises OSError."""
        return self.request("POST", with_instance("/", instance), json.dumps(message).encode())


def with_instance(path: str, instance: str | None) -> str:
    """Add the query that selects an instance."""
    return path if instance is None else f"{path}?instance={quote(instance, safe='')}"


def local_admin(settings: Settings) -> AdminClient:
    """Return a client for this node's first admin server. Raises CertificateError."""
    server = next(each for each in settings.servers if each.type == "admin")
    context = None
    if server.tls:
        context = unverified_context()
        if server.ssl_ca and server.ssl_cert:
            add_client_certificate(context, server.ssl_cert, server.ssl_key)
    secret = server.secrets[0] if server.secrets else None
    return AdminClient(connect_address(server), server.port, context, secret)


def peer_admin(peer: PeerSettings) -> AdminClient:
    """Return a client for a peer's admin server. Raises CertificateError."""
    context = client_context(peer.ssl_ca, peer.ssl_cert, peer.ssl_key) if peer.protocol == "https" else None
    return AdminClient(peer.host, peer.port, context, peer.secret)


def request_json(
    settings: Settings,
    method: str,
    path: str,
    body: bytes = b"",
    timeout: float = COMMAND_TIMEOUT_SECONDS,
) -> Any:
    """Send a command's request to this node's admin server, and return the JSON of its response.

    `settings` may be without the secrets in files. Raises ConfigError, or AdminUnreachable with the response's code.
    """
    admin = local_admin(read_secrets(settings))
    try:
        response = admin.request(method, path, body, timeout=timeout)
    except OSError as error:
        raise AdminUnreachable(
            f"no response from the admin server at {admin.url}: {_reason(error, timeout)}"
        ) from error
    if response.json is None:
        message = f"the admin server at {admin.url} responded with {response.status}, but not with JSON"
        raise AdminUnreachable(message)
    if response.status != 200:
        message = f"the admin server at {admin.url} responded with {response.status}: {response.error}"
        raise AdminUnreachable(message, code=response.code)
    return response.json


def _reason(error: OSError, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"timed out after {timeout:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is the server running? (aphlict status)"
    return error.strerror or str(error) or "connection closed"
