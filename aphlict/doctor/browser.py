"""A WebSocket as a browser holds it, for one command and its answer at a time."""

import json
import os
import time
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha1
from typing import Any

import msgspec

from aphlict.doctor.stream import Answer, Ended, Stream
from aphlict.doctor.target import Target
from aphlict.errors import ProtocolError
from aphlict.protocol import websocket
from aphlict.protocol.http import ACCEPT_GUID

KEY_SIZE = 16
SWITCHING = 101


class Browser:
    """A WebSocket, once `shake_hands` was answered with 101. The methods raise OSError, as Stream's do."""

    def __init__(self, stream: Stream, target: Target) -> None:
        self.stream = stream
        self.pings = 0
        self.close_frame: websocket.Close | None = None
        self._target = target
        self._busy = time.monotonic()  # when something last went over the connection
        self._key = b64encode(os.urandom(KEY_SIZE)).decode()

    def shake_hands(self) -> Answer:
        """Ask for the upgrade with the headers of a browser; the answer is whole where it is not 101."""
        self.stream.send(request(self._target, self._target.path, self._headers()))
        head = self.stream.take_head()
        return head if head.status == SWITCHING else self.stream.finish(head)

    def _headers(self) -> dict[str, str]:
        return {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": self._key,
            "Origin": self._target.origin,
        }

    def accepted(self, head: Answer) -> bool:
        """Whether a WebSocket server has read the key (RFC 6455, 4.1)."""
        expected = b64encode(sha1(self._key.encode() + ACCEPT_GUID).digest()).decode()  # noqa: S324 -- the RFC's
        return head.headers.get("sec-websocket-accept") == expected

    def command(self, name: str, data: Any, timeout: float) -> dict[str, Any]:
        """Send a command and return its answer."""
        self._send(websocket.TEXT, json.dumps({"command": name, "data": data, "id": name}).encode())
        return self.receive(lambda message: message.get("id") == name, timeout)

    def receive(self, wanted: Callable[[dict[str, Any]], bool], timeout: float) -> dict[str, Any]:
        """The next message that is wanted; others are left out, pings answered."""
        self.stream.set_timeout(timeout)
        while True:
            opcode, payload = self._take_frame()
            if opcode == websocket.TEXT:
                message = _read(payload)
                if wanted(message):
                    return message
            else:
                self._on_control(opcode, payload)

    def stay(self, seconds: float) -> float:
        """Be silent, as a page is that nothing happens on, but answer pings; return how long that was borne."""
        try:
            self.receive(lambda _message: False, seconds)
        except TimeoutError:
            return seconds
        except OSError:
            return time.monotonic() - self._busy
        raise AssertionError("there is no message that is wanted")

    def close(self) -> None:
        """End the connection."""
        try:
            self.stream.set_timeout(1)
            self._send(websocket.CLOSE, websocket.NORMAL.to_bytes(2, "big"))
        except OSError:
            pass  # it has ended already
        self.stream.close()

    def _on_control(self, opcode: int, payload: bytes) -> None:
        if opcode == websocket.PING:
            self.pings += 1
            self._send(websocket.PONG, payload)
        elif opcode == websocket.CLOSE:
            self.close_frame = _read_close(payload)
            raise Ended(f"it closed with {self.close_frame.code} {self.close_frame.reason}".rstrip())

    def _send(self, opcode: int, payload: bytes) -> None:
        key = os.urandom(4)
        size = len(payload)
        length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        self.stream.send(bytes((websocket.FINAL | opcode,)) + length + key + _mask(key, payload))

    def _take_frame(self) -> tuple[int, bytes]:
        """Read a frame; the servers of this project send each message in one."""
        first, size = self.stream.take(2)
        self._busy = time.monotonic()
        if size >= 126:
            size = int.from_bytes(self.stream.take(2 if size == 126 else 8), "big")
        return first & 0x0F, self.stream.take(size)


def _read_close(payload: bytes) -> websocket.Close:
    try:
        return websocket.decode_close(payload)
    except ProtocolError as error:
        return websocket.Close(error.close_code, str(error))


def _read(payload: bytes) -> dict[str, Any]:
    """A message; an empty one for what another kind of server may say."""
    try:
        message = msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return {}
    return message if isinstance(message, dict) else {}


def _mask(key: bytes, payload: bytes) -> bytes:
    return bytes(byte ^ key[position % 4] for position, byte in enumerate(payload))


def request(target: Target, path: str, headers: dict[str, str]) -> bytes:
    """The head of a GET request."""
    page = {} if target.opener is None else {"Origin": target.opener}
    token = {} if target.token is None else {"Authorization": f"Bearer {target.token}"}
    fields = {"Host": target.authority, "User-Agent": "aphlict-doctor", **page, **token, **headers}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
