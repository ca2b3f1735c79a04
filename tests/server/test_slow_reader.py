"""A browser that does not read is sent away in whole frames, over TLS as well."""

import asyncio
import json
import socket
import ssl
from pathlib import Path

import pytest

from tests.support.certificates import self_signed
from tests.support.frames import CLOSE, TEXT, text
from tests.support.heads import head
from tests.support.nodes import running_node
from tests.support.waiting import eventually

TOO_MUCH = 200  # messages of 64 KiB: more than the sockets' buffers and `limits.send_buffer` hold


def connect(port: int, tls: ssl.SSLContext | None) -> socket.socket:
    """A browser that has subscribed, and has a small buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", port))
    if tls is not None:
        sock = tls.wrap_socket(sock, server_hostname="localhost")
    sock.sendall(head() + text(json.dumps({"command": "subscribe", "data": ["a"], "id": 1})))
    return sock


def read_frames(sock: socket.socket) -> list[tuple[int, bytes]]:
    """All that comes up to the end: opcode and payload of each frame, which has to be whole."""
    data = b""
    while piece := sock.recv(1 << 20):
        data += piece
    _, _, data = data.partition(b"\r\n\r\n")
    frames = []
    while data:
        extra = {126: 2, 127: 8}.get(data[1], 0)
        size = int.from_bytes(data[2 : 2 + extra], "big") if extra else data[1]
        assert len(data) >= 2 + extra + size, "a frame is cut off"
        frames.append((data[0], data[2 + extra : 2 + extra + size]))
        data = data[2 + extra + size :]
    return frames


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_who_reads_too_slowly_is_told_so(secure: bool, tmp_path: Path) -> None:
    files = self_signed().write(tmp_path)
    trust = ssl.create_default_context(cafile=files.ca) if secure else None

    async with running_node(client=files.settings() if secure else None) as node:
        browser = await asyncio.to_thread(connect, node.client_port, trust)
        hub = node.node.hub
        await eventually(lambda: hub.connections and hub.instance("default").index.match(["a"]))
        number = 0
        while hub.connections:
            assert number < TOO_MUCH
            await node.publish({"subscribers": ["a"], "n": number, "text": "x" * 65_536})
            number += 1
        frames = await asyncio.to_thread(read_frames, browser)
        browser.close()
    assert [opcode for opcode, _ in frames] == [0x80 | TEXT] * (len(frames) - 1) + [0x80 | CLOSE]
    numbers = [json.loads(payload)["n"] for _, payload in frames[1:-1]]
    assert numbers == list(range(len(numbers)))
    assert int.from_bytes(frames[-1][1][:2], "big") == 1013
