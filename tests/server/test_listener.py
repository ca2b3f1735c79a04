"""A listening socket continues after failing connections and exhausted resources."""

import asyncio
import errno
import gc
import logging
import os
import select
import socket
import ssl
import struct
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import self_signed
from tests.support.nodes import running_node
from tests.support.proxied import v2
from tests.support.waiting import eventually

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def connect_and_reset(port: int, content: bytes) -> None:
    """Connect, send, and reset the connection: all of it before the server can accept."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        sock.sendall(content)


def ask_for_health(port: int, authority: str) -> int:
    """Return the status of a load balancer's health check."""
    client = HTTPSConnection(
        "localhost", port, context=ssl.create_default_context(cafile=authority), timeout=10
    )
    client.request("GET", "/status")
    answer = client.getresponse()
    answer.read()
    client.close()
    return answer.status


@pytest.mark.parametrize("content", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_client_that_resets_before_it_is_accepted(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = self_signed().write(tmp_path)
    with caplog.at_level(logging.WARNING):
        async with running_node(client=files.settings()) as node:
            for _ in range(3):
                connect_and_reset(node.client_port, content)
            assert await asyncio.to_thread(ask_for_health, node.client_port, files.ca) == 200
        gc.collect()
    assert not caplog.records


@pytest.mark.parametrize(
    "path", ["events?channel=a", "events?channel=a&after=x", "poll?channel=a&after=x", "status"]
)
async def test_a_client_that_resets_before_the_response(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with running_node() as node:
            limiter = node.node.server.admission["client"].connections
            with socket.create_connection(("127.0.0.1", node.client_port)) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                await eventually(lambda: limiter.used == 1)
                sock.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await eventually(lambda: limiter.used == 0)
            assert node.node.hub.connections == 0
    assert not caplog.records


class FullEpoll:
    """An epoll without kernel memory left, or with fs.epoll.max_user_watches reached."""

    def __init__(self, epoll: select.epoll, number: int) -> None:
        self._epoll = epoll
        self._number = number

    def register(self, _fd: int, _events: int) -> None:
        """Fail as epoll_ctl(2) does."""
        raise OSError(self._number, os.strerror(self._number))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM], ids=["ENOSPC", "ENOMEM"])
@pytest.mark.parametrize("kind", ["plain", "TLS", "proxy", "rejected"])
async def test_a_connection_that_epoll_cannot_register_is_released(
    kind: str, number: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client: dict[str, Any] = self_signed().write(tmp_path).settings() if kind == "TLS" else {}
    client["proxy.protocol"] = kind == "proxy"
    with caplog.at_level(logging.WARNING):
        async with running_node(client=client) as node:
            limits = node.node.server.admission["client"]
            if kind == "rejected":
                limits.connections.reload(0, None, ())
            poller = node.node.server.context.poller
            epoll, handlers = poller._epoll, poller.handlers()
            poller._epoll = FullEpoll(epoll, number)  # type: ignore[assignment]
            reader, writer = await asyncio.open_connection("127.0.0.1", node.client_port)
            assert await asyncio.wait_for(reader.read(), 20) == b""
            writer.close()
            assert poller.handlers() == handlers
            assert limits.connections.used == limits.rejections.used == limits.pending.used == 0
            poller._epoll = epoll
            reader, writer = await asyncio.open_connection("127.0.0.1", node.client_port)
            await eventually(lambda: len(poller.handlers()) > len(handlers), "the next connection")
            writer.close()
        gc.collect()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_connection_that_epoll_cannot_register_after_its_proxy_header(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        async with running_node(client={"proxy.protocol": True}) as node:
            poller = node.node.server.context.poller
            epoll, before = poller._epoll, len(poller.handlers())
            reader, writer = await asyncio.open_connection("127.0.0.1", node.client_port)
            await eventually(lambda: len(poller.handlers()) > before, "the connection")
            poller._epoll = FullEpoll(epoll, errno.ENOSPC)  # type: ignore[assignment]
            writer.write(v2("192.0.2.1"))
            assert await asyncio.wait_for(reader.read(), 20) == b""
            writer.close()
            poller._epoll = epoll
    assert [record.levelname for record in caplog.records] == ["ERROR"]
