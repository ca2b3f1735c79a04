"""A listener outlives whatever knocks."""

import gc
import logging
import socket
import ssl
import struct
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.support.certificates import self_signed
from tests.support.loops import in_loop
from tests.support.nodes import running_node

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def knock_and_run(port: int, content: bytes) -> None:
    """Connect, send, and reset the connection: all of it before the server can accept."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        sock.sendall(content)


@pytest.mark.parametrize("content", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"])
def test_who_is_gone_before_it_is_accepted_does_no_harm(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = self_signed().write(tmp_path)

    @in_loop
    async def run() -> None:
        async with running_node(client=files.settings()) as node:
            for _ in range(3):
                knock_and_run(node.client_port, content)
            trust = ssl.create_default_context(cafile=files.ca)
            async with connect(node.url(), ssl=trust) as browser:
                await (await browser.ping())

    with caplog.at_level(logging.WARNING):
        run()
        gc.collect()
    assert not caplog.records
