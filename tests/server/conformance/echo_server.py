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
from aphlict.core.stats import LimitCounters
from aphlict.protocol.http import Request
from aphlict.protocol.websocket import WSMessage, encode_frame
from aphlict.server.connection import Application, Connection, Context
from aphlict.server.context import Surroundings
from aphlict.server.limits import ConnectionLimiter, TokenBucket
from aphlict.server.listener import Listener
from aphlict.server.timer_wheel import TICK

LARGEST = 16 * 1024 * 1024  # the suite sends messages of this size
FRAMES = 1_000_000  # in one message
LIMITS = Limits(client_frame=LARGEST, send_buffer=4 * LARGEST, commands_burst=FRAMES)


class Echo(Application):
    """Accepts every WebSocket and echoes its messages."""

    def on_request(self, connection: Connection, request: Request, /) -> None:
        """Accept the WebSocket."""
        connection.upgrade(request)

    def on_message(self, connection: Connection, received: WSMessage, /) -> None:
        """Echo the message."""
        data = received.data.encode() if isinstance(received.data, str) else received.data
        connection.send(encode_frame(received.opcode, data))


async def serve(sock: socket.socket, tls: ssl.SSLContext | None) -> None:
    """Serve until killed."""
    surroundings = Surroundings(LIMITS, LimitCounters(), time.monotonic())
    poller = surroundings.poller
    poller.start()
    context = Context(Echo(), ConnectionLimiter(sys.maxsize, None), surroundings)

    def on_accept(accepted: socket.socket, address: str) -> None:
        if tls is not None:
            accepted = tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        Connection(accepted, address, context)

    Listener(sock, poller, on_accept, TokenBucket(None), surroundings.hits).start()
    while True:
        await asyncio.sleep(TICK)
        while surroundings.deadlines.sweep(time.monotonic()):
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
