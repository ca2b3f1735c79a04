"""Two nodes behind one address: one is stopped, then one is killed, and pages miss no message.

A node that has just been started may report a gap: it does not know yet what its predecessor accepted.
"""

import asyncio
import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.proxies.apache import apache, small
from tests.proxies.haproxy import shipped_haproxy
from tests.proxies.pages import CHANNEL, Page
from tests.proxies.programs import free_port
from tests.proxies.shipped import shipped
from tests.support.installation import Installation
from tests.support.waiting import eventually, eventually_async

PAGES = 6
CHECK_INTERVAL = 2.0  # seconds: that of the shipped files
DRAIN_DELAY = 0.3

Proxy = Callable[[Installation, Installation], AbstractContextManager[int]]


@contextmanager
def behind_haproxy(one: Installation, two: Installation) -> Iterator[int]:
    """Run HAProxy with the configuration of conf/ for two servers."""
    ports = {"22280": one.client_port, "22380": two.client_port}
    with shipped_haproxy("aphlict-path.cfg", ports) as port:
        yield port


@contextmanager
def behind_apache(one: Installation, two: Installation) -> Iterator[int]:
    """Run Apache with the balancer of conf/."""
    port = free_port()
    ports = {":22280": f":{one.client_port}", ":22380": f":{two.client_port}"}
    with apache(shipped("apache/aphlict-balancer.conf", **ports), port, server=small(threads=64)):
        yield port


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[Installation, Installation]]:
    """Run two nodes that are peers."""
    for name in ("one", "two"):
        (folder / name).mkdir()
    nodes = [Installation(folder / name) for name in ("one", "two")]
    cluster = [{"host": "127.0.0.1", "port": node.admin_port, "protocol": "http"} for node in nodes]
    try:
        for node in nodes:
            node.write(cluster=cluster, drain_delay=DRAIN_DELAY)
            node.start()
        yield nodes[0], nodes[1]
    finally:
        for node in nodes:
            node.end()


@asynccontextmanager
async def open_pages(url: str) -> AsyncIterator[list[Page]]:
    """Open pages until the end of the block."""
    pages = [Page(url) for _ in range(PAGES)]
    tasks = [asyncio.create_task(page.live()) for page in pages]
    try:
        yield pages
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Publisher:
    """Publishes numbers continuously, to one node at a time, until cancelled."""

    def __init__(self, node: Installation) -> None:
        self.node = node
        self.count = 0

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            self.publish()
            await asyncio.sleep(0.01)

    def publish(self) -> None:
        """Publish the next number."""
        body = json.dumps({"subscribers": [CHANNEL], "text": self.count}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.node.admin_port}/", body, timeout=5) as answer:
            assert answer.status == 200
        self.count += 1


@asynccontextmanager
async def publishing(publisher: Publisher) -> AsyncIterator[None]:
    """Publish continuously until the end of the block."""
    task = asyncio.create_task(publisher.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def active(node: Installation) -> int:
    """Return the number of clients of a node."""
    status = node.answers()
    return int(status["clients.active"]) if status else 0


def is_stopping(node: Installation) -> bool:
    """Return whether the health check of a node fails."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{node.client_port}/status", timeout=5).close()
    except urllib.error.HTTPError as error:
        with error:
            return bool(json.load(error)["state"] == "STOPPING")
    return False


async def all_on(node: Installation) -> float:
    """Wait until every page is connected to this node; return the seconds."""
    start = time.monotonic()
    await eventually(lambda: active(node) == PAGES, "every page on the other node")
    return time.monotonic() - start


async def leads_to(node: Installation, url: str) -> bool:
    """Return whether the proxy connects a new client to this node."""
    async with connect(url):
        return active(node) > 0


async def told_all(pages: list[Page], publisher: Publisher) -> None:
    """Assert that every page has every number, once and in order."""
    await eventually(lambda: all(len(page.texts) >= publisher.count for page in pages), "all messages")
    for page in pages:
        assert page.texts == list(range(publisher.count))


@pytest.mark.parametrize("proxy", [behind_haproxy, behind_apache])
async def test_pages_of_a_node_that_ends_go_on_at_the_other(proxy: Proxy, tmp_path: Path) -> None:
    with two_nodes(tmp_path) as (one, two), proxy(one, two) as port:
        url = f"ws://127.0.0.1:{port}/ws/"
        async with open_pages(url) as pages:
            await eventually(lambda: all(page.is_subscribed for page in pages), "all pages to subscribe")
            assert active(one)
            assert active(two)
            publisher = Publisher(two)
            publisher.publish()
            await told_all(pages, publisher)
            async with publishing(publisher):
                stopping = asyncio.create_task(asyncio.to_thread(one.run, "stop"))
                await eventually(lambda: is_stopping(one), "the node to say that it stops")
                assert await all_on(two) < CHECK_INTERVAL
                assert (await stopping).returncode == 0
            await told_all(pages, publisher)
            assert [page.gaps for page in pages] == [0] * PAGES

            await asyncio.to_thread(one.start)
            publisher.node = one
            publisher.publish()
            await told_all(pages, publisher)
            await eventually_async(lambda: leads_to(one, url), "the proxy to notice that it is there again")
            async with publishing(publisher):
                two.end()
                assert await all_on(one) < CHECK_INTERVAL
            await told_all(pages, publisher)
