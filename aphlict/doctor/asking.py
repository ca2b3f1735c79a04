"""Asking an admin server: this node's own, or a peer's."""

import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aphlict.config.settings import PeerSettings, Settings
from aphlict.doctor.stream import Answer, Stream
from aphlict.doctor.target import LOCAL

TIMEOUT = 5.0


@dataclass(frozen=True)
class AdminServer:
    """Where an admin server is; `tls` is None where it speaks plain HTTP. Methods raise OSError."""

    host: str
    port: int
    tls: ssl.SSLContext | None

    @property
    def url(self) -> str:
        """Its URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """One request and its answer."""
        sock = socket.create_connection((self.host, self.port), TIMEOUT)
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_hostname=self.host)
            stream = Stream(sock, TIMEOUT)
            head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n"
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
    return AdminServer(LOCAL.get(server.address, server.address), server.port, context)


def admin_of(peer: PeerSettings) -> AdminServer:
    """A peer's admin server, whose certificate has to be good. Raises OSError where ssl.ca cannot be used."""
    context = ssl.create_default_context(cafile=peer.ssl_ca) if peer.protocol == "https" else None
    return AdminServer(peer.host, peer.port, context)
