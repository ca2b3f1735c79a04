"""Asking an admin server: this node's own, or a peer's."""

import json
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aphlict.config.settings import PeerSettings, Settings
from aphlict.doctor.stream import Answer, Stream
from aphlict.doctor.target import LOCAL
from aphlict.protocol.addresses import url_host
from aphlict.tls.context import add_client_certificate, client_context

TIMEOUT = 5.0


@dataclass(frozen=True)
class AdminServer:
    """Where an admin server is; `tls` is None where it speaks plain HTTP. Methods raise OSError."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    secret: str | None = None

    @property
    def url(self) -> str:
        """Its URL."""
        return f"{'https' if self.tls else 'http'}://{self._name}:{self.port}"

    @property
    def _name(self) -> str:
        return url_host(self.host)

    def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """One request and its answer."""
        sock = socket.create_connection((self.host, self.port), TIMEOUT)
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_hostname=self.host)
            stream = Stream(sock, TIMEOUT)
            head = f"{method} {path} HTTP/1.1\r\nHost: {self._name}\r\nConnection: close\r\n"
            if self.secret is not None:
                head += f"Authorization: Bearer {self.secret}\r\n"
            with suppress(
                ssl.SSLEOFError, ConnectionError
            ):  # what was said before the end is read all the same
                stream.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            return stream.take_answer()
        finally:
            sock.close()

    def publish(self, instance: str, message: dict[str, Any]) -> Answer:
        """Publish one message."""
        return self.ask("POST", f"/?instance={quote(instance, safe='')}", json.dumps(message).encode())


def own_admin(settings: Settings) -> AdminServer:
    """This node's first admin server; its certificate has the public name, so it is taken as it is."""
    server = next(each for each in settings.servers if each.type == "admin")
    context = None
    if server.tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if server.ssl_ca and server.ssl_cert:
            add_client_certificate(context, server.ssl_cert, server.ssl_key)
    secret = server.secrets[0] if server.secrets else None
    return AdminServer(LOCAL.get(server.address, server.address), server.port, context, secret)


def admin_of(peer: PeerSettings) -> AdminServer:
    """A peer's admin server, whose certificate has to be good. Raises CertificateError where files cannot be used."""
    context = client_context(peer.ssl_ca, peer.ssl_cert, peer.ssl_key) if peer.protocol == "https" else None
    return AdminServer(peer.host, peer.port, context, peer.secret)
