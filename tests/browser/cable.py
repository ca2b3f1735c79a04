"""A network that a test can cut: a TCP proxy that stops forwarding, and tells nobody."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep

REFUSAL = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Cable:
    """Leads from a port of its own to a server's. `begun` is when each connection was made, `heads` how it began.

    While it `refuses_upgrades` no WebSocket comes through, while it `refuses_streams` no event stream; while it
    `swallows_frames`, nothing that a browser says over a WebSocket. `delay` is how many seconds everything takes.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.refuses_upgrades = False
        self.refuses_streams = False
        self.delay = 0.0
        self.swallows_frames = False
        self.begun: list[float] = []
        self.heads: list[bytes] = []
        self._whole = threading.Event()
        self._whole.set()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        """Where browsers connect."""
        return f"ws://127.0.0.1:{self.port}/ws/"

    def cut(self) -> None:
        """From now on nothing comes through; connections stay, as with a cable that was pulled out."""
        self._whole.clear()

    def mend(self) -> None:
        """Everything comes through again, and what was held up."""
        self._whole.set()

    def break_off(self) -> None:
        """Hang up every connection; new ones come through."""
        for each in tuple(self._sockets):
            with suppress(OSError):  # it was not connected any more
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                near, _ = self._listener.accept()
                self.begun.append(monotonic())
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self._sockets.add(near)
        head = self._read(near)
        self.heads.append(head)
        is_websocket = b"upgrade: websocket" in head.lower()
        is_stream = b"/events?" in head.split(b"\r\n")[0]
        if (self.refuses_upgrades and is_websocket) or (self.refuses_streams and is_stream):
            near.sendall(REFUSAL)
            near.close()
            return
        try:
            far = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            near.close()
            return
        self._sockets.add(far)
        far.sendall(head)
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        back.start()
        if self.swallows_frames and is_websocket:
            while self._read(near):
                pass
            far.close()
        else:
            self._pump(near, far)
        back.join()
        self._sockets -= {near, far}
        near.close()
        far.close()

    def _read(self, source: socket.socket) -> bytes:
        """What comes next, once the cable is whole; nothing at the end."""
        try:
            data = source.recv(65536)
        except OSError:
            return b""
        self._whole.wait()
        return data

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # the other side has gone
            while data := self._read(source):
                sleep(self.delay)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Hang up everything."""
        self.mend()
        self.break_off()
        with suppress(OSError):  # so that accept() returns
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()


@contextmanager
def cable_to(port: int) -> Iterator[Cable]:
    """A cable while the block lasts."""
    cable = Cable(port)
    try:
        yield cable
    finally:
        cable.close()
