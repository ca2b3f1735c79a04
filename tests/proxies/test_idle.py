"""Idle connections through proxies with short timeouts."""

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

PROXY_TIMEOUT = 3  # seconds of silence after which each proxy closes a connection

Proxy = Callable[[int], AbstractContextManager[int]]


@contextmanager
def nginx(upstream: int) -> Iterator[int]:
    """Run nginx with a short read timeout."""
    with shipped_path(
        upstream, **{"proxy_read_timeout    120s": f"proxy_read_timeout {PROXY_TIMEOUT}s"}
    ) as port:
        yield port


@contextmanager
def apache_httpd(upstream: int) -> Iterator[int]:
    """Run Apache with a short timeout."""
    port = free_port()
    short = {"22280": str(upstream), " timeout=120": f" timeout={PROXY_TIMEOUT}"}
    with apache(f"Timeout {PROXY_TIMEOUT}\n" + shipped("apache/aphlict-path.conf", **short), port):
        yield port


@contextmanager
def haproxy(upstream: int) -> Iterator[int]:
    """Run HAProxy with a short tunnel timeout."""
    short = {"timeout tunnel  1h": f"timeout tunnel {PROXY_TIMEOUT}s"}
    with shipped_haproxy("aphlict-subdomain.cfg", {"22280": upstream}, **short) as port:
        yield port


async def lasts(port: int, seconds: float) -> bool:
    """Return whether a silent connection is still open after this time."""
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
            is_kept, stays = await asyncio.gather(
                lasts(kept, 1.5 * PROXY_TIMEOUT), lasts(cut, 6 * PROXY_TIMEOUT)
            )
            assert is_kept
            assert not stays
