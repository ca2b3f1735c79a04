"""A thousand clients that one thread reads as fast as it can."""

import contextlib
import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

UPGRADE = (
    b"GET /ws/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CHUNK = 1 << 18
WITNESSES = 3


class SubscriberSet:
    """Clients on one channel. The bytes that the first few, the witnesses, receive are kept."""

    def __init__(self, port: int, channel: str, size: int) -> None:
        self.closed = 0  # by the server
        self._witnesses: dict[int, bytearray] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        self._ended = threading.Event()
        body = json.dumps({"command": "subscribe", "data": [channel]}).encode()
        for number in range(size):
            sock = socket.create_connection(("127.0.0.1", port), 10)
            sock.sendall(UPGRADE + bytes((0x81, 0x80 | len(body))) + bytes(4) + body)
            assert sock.recv(4096).endswith(b"\r\n\r\n")
            sock.setblocking(False)
            self._sockets[sock.fileno()] = sock
            self._poll.register(sock.fileno(), select.EPOLLIN)
            if number < WITNESSES:
                self._witnesses[sock.fileno()] = bytearray()

    def read(self) -> None:
        """Read until `end` is called."""
        while not self._ended.is_set():
            for descriptor, _ in self._poll.poll(0.1):
                data = b""
                with contextlib.suppress(OSError):
                    data = self._sockets[descriptor].recv(CHUNK)
                if not data:
                    self._poll.unregister(descriptor)
                    self.closed += 1
                elif descriptor in self._witnesses:
                    self._witnesses[descriptor] += data

    def end(self) -> None:
        """Stop reading."""
        self._ended.set()

    def close(self) -> None:
        """Close all."""
        self._poll.close()
        for sock in self._sockets.values():
            sock.close()

    def heard(self) -> list[list[str]]:
        """The uniqueIDs that each witness received, in order."""
        return [_ids(bytes(data)) for data in self._witnesses.values()]


def _ids(data: bytes) -> list[str]:
    """The uniqueIDs in a stream of short frames."""
    found, place = [], 0
    while place + 4 <= len(data):
        head, size = (
            (2, data[place + 1])
            if data[place + 1] < 126
            else (4, int.from_bytes(data[place + 2 : place + 4], "big"))
        )
        payload = data[place + head : place + head + size]
        place += head + size
        if data[place - head - size] == 0x81 and len(payload) == size:
            found.append(json.loads(payload)["uniqueID"])
    return found


@contextmanager
def crowd(port: int, channel: str, size: int) -> Iterator[SubscriberSet]:
    """Connect clients, and read them in a thread."""
    made = SubscriberSet(port, channel, size)
    reader = threading.Thread(target=made.read)
    reader.start()
    try:
        yield made
    finally:
        made.end()
        reader.join()
        made.close()
