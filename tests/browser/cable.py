"""A network that a test can cut: a TCP proxy that stops forwarding, without closing a connection."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep

REFUSAL = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Cable:
    """Forwards a port of its own to the port of a server.

    Attributes that a test may set: `target`, `delay` (seconds for each chunk of data), `refuses_upgrades` (400 for
    WebSockets), `refuses_streams` (400 for event streams) and `swallows_frames` (drops what clients send over
    WebSockets). `begun` has the time of each connection, `heads` the first data of each.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.refuses_upgrades = False
        self.refuses_streams = False
        self.delay = 0.0
        self.swallows_frames = False
        self.begun: list[float] = []
        self.heads: list[bytes] = []
        self._is_whole = threading.Event()
        self._is_whole.set()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        """The URL to connect to."""
        return f"ws://127.0.0.1:{self.port}/ws/"

    def cut(self) -> None:
        """Stop forwarding; connections stay open."""
        self._is_whole.clear()

    def reconnect(self) -> None:
        """Forward again, with all that was sent meanwhile."""
        self._is_whole.set()

    def close_connections(self) -> None:
        """Close every connection; new ones are accepted."""
        for each in tuple(self._sockets):
            with suppress(OSError):  # it is not connected any more
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                self.begun.append(monotonic())
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._sockets.add(client)
        with client, suppress(OSError):  # either side has closed the connection
            head = self._read(client)
            self.heads.append(head)
            is_websocket = b"upgrade: websocket" in head.lower()
            is_stream = b"/events?" in head.split(b"\r\n")[0]
            if (self.refuses_upgrades and is_websocket) or (self.refuses_streams and is_stream):
                client.sendall(REFUSAL)
            else:
                self._forward(client, head, drop=self.swallows_frames and is_websocket)
        self._sockets.discard(client)

    def _forward(self, client: socket.socket, head: bytes, *, drop: bool) -> None:
        with socket.create_connection(("127.0.0.1", self.target)) as server:
            self._sockets.add(server)
            server.sendall(head)
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            if drop:
                while self._read(client):
                    pass
                server.shutdown(socket.SHUT_RDWR)
            else:
                self._pump(client, server)
            back.join()
            self._sockets.discard(server)

    def _read(self, source: socket.socket) -> bytes:
        """Return the next data, once the cable is not cut; nothing at the end."""
        try:
            data = source.recv(65536)
        except OSError:
            return b""
        self._is_whole.wait()
        return data

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # the other side has closed the connection
            while data := self._read(source):
                sleep(self.delay)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close everything."""
        self.reconnect()
        self.close_connections()
        with suppress(OSError):  # so that accept() returns
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()


@contextmanager
def cable_to(port: int) -> Iterator[Cable]:
    """A cable to a server's port."""
    cable = Cable(port)
    try:
        yield cable
    finally:
        cable.close()
