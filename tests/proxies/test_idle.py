"""Connections on which nothing happens, through proxies with a short patience."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.proxies.apache import apache
from tests.proxies.haproxy import shipped_haproxy
from tests.proxies.nginx import shipped_path
from tests.proxies.programs import free_port
from tests.proxies.shipped import shipped
from tests.support.nodes import running_node

PATIENCE = 3  # seconds that each of these proxies bears silence

Proxy = Callable[[int], AbstractContextManager[int]]


@contextmanager
def nginx(upstream: int) -> Iterator[int]:
    """nginx with a short read time-out."""
    with shipped_path(upstream, **{"proxy_read_timeout    120s": f"proxy_read_timeout {PATIENCE}s"}) as port:
        yield port


@contextmanager
def apache_httpd(upstream: int) -> Iterator[int]:
    """Apache with a short time-out."""
    port = free_port()
    short = {"22280": str(upstream), " timeout=120": f" timeout={PATIENCE}"}
    with apache(f"Timeout {PATIENCE}\n" + shipped("apache/aphlict-path.conf", **short), port):
        yield port


@contextmanager
def haproxy(upstream: int) -> Iterator[int]:
    """HAProxy with a short tunnel."""
    short = {"timeout tunnel  1h": f"timeout tunnel {PATIENCE}s"}
    with shipped_haproxy("aphlict-subdomain.cfg", {"22280": upstream}, **short) as port:
        yield port


async def lasts(port: int, seconds: float) -> bool:
    """Whether a silent connection is still there after so long."""
    dialled: dict[str, Any] = {"host": "127.0.0.1", "port": port}
    async with connect("ws://notify.example.org/ws/", ping_interval=None, **dialled) as browser:
        try:
            await asyncio.wait_for(browser.recv(), seconds)
        except asyncio.TimeoutError:
            return True
        except ConnectionClosed:
            return False
    raise AssertionError("there was nothing to be said")


@pytest.mark.parametrize("proxy", [nginx, apache_httpd, haproxy])
async def test_pings_keep_a_silent_connection_alive(proxy: Proxy) -> None:
    async with running_node(ping__interval=0.5) as pinging, running_node() as silent:
        with proxy(pinging.client_port) as kept, proxy(silent.client_port) as cut:
            is_kept, stays = await asyncio.gather(lasts(kept, 1.5 * PATIENCE), lasts(cut, 6 * PATIENCE))
            assert is_kept
            assert not stays
