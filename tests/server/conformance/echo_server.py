"""An echo server that uses only the connection and frame code of this project.

`python -m tests.server.conformance.echo_server [KEY CERTIFICATE]` listens on a free port of the loopback address and
prints it; with a key and a certificate it speaks TLS.
"""

import asyncio
import socket
import ssl
import sys
import time

from aphlict.config.settings import Limits
from aphlict.core.metrics import Cause
from aphlict.core.stats import LimitCounters
from aphlict.protocol.http import Request
from aphlict.protocol.websocket import WSMessage, encode_frame
from aphlict.server.context import PortContext, ServerContext
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.limits import NoLimit, TokenBucket
from aphlict.server.listener import Listener
from aphlict.server.timer_wheel import TICK
from aphlict.server.tls_socket import TLSSocket
from aphlict.server.websocket_connection import WebSocket

LARGEST = 16 * 1024 * 1024  # the suite sends messages of this size
FRAMES = 1_000_000  # in one message
LIMITS = Limits(client_frame=LARGEST, send_buffer=4 * LARGEST, commands_burst=FRAMES)


class Echo:
    """Upgrades every request, and sends each message back: Handler and Session."""

    max_body_size = 0

    def check_head(self, connection: HTTPConnection, request: Request, /) -> None:
        """Accept every request."""

    def on_request(self, connection: HTTPConnection, request: Request, body: bytes, /) -> None:
        """Upgrade."""
        connection.upgrade(request, lambda _websocket: self)

    def on_message(self, websocket: WebSocket, message: WSMessage, /) -> None:
        """Send the message back."""
        data = message.data.encode() if isinstance(message.data, str) else message.data
        websocket.send(encode_frame(message.opcode, data))

    def on_close(self, websocket: WebSocket, _reason: str, _cause: Cause, /) -> None:
        """Do nothing."""


async def serve(sock: socket.socket, tls: ssl.SSLContext | None) -> None:
    """Serve until killed."""
    server = ServerContext(LIMITS, LimitCounters(), time.monotonic())
    server.poller.start()
    port = PortContext(server, NoLimit(), is_trusted=False)

    def on_accept(accepted: socket.socket, address: str) -> None:
        if tls is not None:
            accepted = TLSSocket(accepted, tls, server.tls_bridge)
        HTTPConnection(accepted, address, port, Echo())

    Listener(sock, server.poller, on_accept, TokenBucket(None), server.limit_counters).start()
    while True:
        await asyncio.sleep(TICK)
        while server.timers.sweep(time.monotonic()):
            pass


def main(files: list[str]) -> None:
    """Print the port and serve until killed."""
    tls = None
    if files:
        key, certificate = files
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate, key)
    sock = socket.create_server(("127.0.0.1", 0), backlog=128)
    sock.setblocking(False)
    print(sock.getsockname()[1], flush=True)
    asyncio.run(serve(sock, tls))


if __name__ == "__main__":
    main(sys.argv[1:])
