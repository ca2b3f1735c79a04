"""Aphlict behind Apache, with the configurations that are shipped."""

import re
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.proxies.apache import apache, read_log, small
from tests.proxies.programs import free_port
from tests.proxies.proving import Way, fetch, get, prove_refusal
from tests.proxies.shipped import shipped
from tests.support.loops import in_loop
from tests.support.nodes import running_node
from tests.support.waiting import eventually_async


@pytest.mark.parametrize("name", ["aphlict-path.conf", "aphlict-wstunnel.conf", "aphlict-rewrite.conf"])
def test_a_path_of_the_site(name: str) -> None:
    @in_loop
    async def run() -> None:
        async with running_node() as node:
            port = free_port()
            with apache(shipped(f"apache/{name}", **{"22280": str(node.client_port)}), port):
                await Way(node, port).prove()
                await Way(node, port, "/ws/~a%20b/", instance="a%20b").prove()
                await prove_refusal(f"http://127.0.0.1:{port}/ws/")
                assert await fetch(f"http://127.0.0.1:{port}/") == (200, b"the site\n")

    run()


@contextmanager
def balancer(one: int, two: int) -> Iterator[int]:
    """The shipped balancer over two nodes, which looks at them more often; where Apache listens."""
    port = free_port()
    ports = {":22280": f":{one}", ":22380": f":{two}"}
    often = {"hcinterval=2": "hcinterval=100ms", "retry=2": "retry=0"}
    with apache(shipped("apache/aphlict-balancer.conf", **ports, **often), port):
        yield port


@in_loop
async def test_a_balancer_whose_cookie_leads_back() -> None:
    async with running_node() as one, running_node() as two:
        with balancer(one.client_port, two.client_port) as port:
            for name, node in ("one", one), ("two", two):
                await Way(node, port, "/ws/~acme/", instance="acme", cookie=f"ROUTEID=.{name}").prove()
            answer = await get(f"http://127.0.0.1:{port}/ws/status")
            assert answer.code == 200
            assert re.match(r"ROUTEID=\.(one|two); Path=/ws/", answer.headers["Set-Cookie"])
            await prove_refusal(f"http://127.0.0.1:{port}/ws/")


def test_the_sizes_of_the_event_mpm_are_taken_as_they_are() -> None:
    with apache("", free_port(), server=shipped("apache/aphlict-mpm.conf")) as folder:
        complaints = [line for line in read_log(folder) if ":warn" in line or ":error" in line]
        assert complaints == []


@in_loop
async def test_browsers_do_not_use_up_the_workers_of_the_site() -> None:
    async with running_node() as node, AsyncExitStack() as stack:
        port = free_port()
        few = {"22280": str(node.client_port), "max=48": "max=4", "acquire=100": "acquire=1"}
        with apache(shipped("apache/aphlict-path.conf", **few), port, server=small(threads=8)):
            for _ in range(4):
                await stack.enter_async_context(connect(f"ws://127.0.0.1:{port}/ws/"))
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{port}/ws/")
            assert refused.value.response.status_code == 503
            assert await fetch(f"http://127.0.0.1:{port}/") == (200, b"the site\n")
            await stack.aclose()
            await eventually_async(lambda: connects(f"ws://127.0.0.1:{port}/ws/"), "room for another browser")


async def connects(url: str) -> bool:
    """Whether a browser is let in."""
    try:
        async with connect(url):
            return True
    except InvalidStatus:
        return False
