"""Aphlict behind Apache, with the configurations in conf/."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.proxies.apache import apache, read_log, small
from tests.proxies.programs import free_port
from tests.proxies.route import ProxiedRoute, fetch, get, prove_refusal
from tests.proxies.shipped import CONF, shipped
from tests.support.nodes import RunningNode, running_node
from tests.support.waiting import eventually_async

LIMITED = [path for path in (CONF / "apache").iterdir() if path.name != "aphlict-mpm.conf"]


@pytest.mark.parametrize("name", ["aphlict-path.conf", "aphlict-wstunnel.conf", "aphlict-rewrite.conf"])
async def test_a_path_of_the_site(name: str) -> None:
    async with running_node() as node:
        port = free_port()
        with apache(shipped(f"apache/{name}", **{"22280": str(node.client_port)}), port):
            await ProxiedRoute(node, port).check()
            await ProxiedRoute(node, port, "/ws/~a%20b/", instance="a%20b").check()
            await prove_refusal(f"http://127.0.0.1:{port}/ws/")
            assert await fetch(f"http://127.0.0.1:{port}/") == (200, b"the site\n")


@contextmanager
def balancer(one: int, two: int) -> Iterator[int]:
    """Run the balancer of conf/ over two nodes, with more frequent health checks. Yields the port of Apache."""
    port = free_port()
    ports = {":22280": f":{one}", ":22380": f":{two}"}
    often = {"hcinterval=2": "hcinterval=100ms", "retry=2": "retry=0"}
    with apache(shipped("apache/aphlict-balancer.conf", **ports, **often), port):
        yield port


async def test_a_balancer_whose_cookie_leads_back() -> None:
    async with running_node() as one, running_node() as two:
        with balancer(one.client_port, two.client_port) as port:
            for name, node in ("one", one), ("two", two):
                await ProxiedRoute(
                    node, port, "/ws/~acme/", instance="acme", cookie=f"ROUTEID=.{name}"
                ).check()
            answer = await get(f"http://127.0.0.1:{port}/ws/status")
            assert answer.code == 200
            assert re.match(r"ROUTEID=\.(one|two); Path=/ws/", answer.headers["Set-Cookie"])
            await prove_refusal(f"http://127.0.0.1:{port}/ws/")


def test_the_sizes_of_the_event_mpm_are_taken_as_they_are() -> None:
    with apache("", free_port(), server=shipped("apache/aphlict-mpm.conf")) as folder:
        complaints = [line for line in read_log(folder) if ":warn" in line or ":error" in line]
        assert complaints == []


@pytest.mark.parametrize("name", sorted(path.name for path in LIMITED))
async def test_browsers_do_not_use_up_the_workers_of_the_site(name: str) -> None:
    """An eighth of everything: 8 threads, 6 of them for clients."""

    async with chatty() as one, chatty() as two, AsyncExitStack() as stack:
        port = free_port()
        text = scaled((CONF / "apache" / name).read_text(), {"max": 8, "acquire": 100, "retry": 2000})
        text = text.replace("22280", str(one.client_port)).replace("22380", str(two.client_port))
        with apache(text, port, server=small(threads=8)):
            sockets = await fill(port, lambda: websocket(port, stack))
            streams = await fill(port, lambda: event_stream(port, stack))
            assert sockets + streams == 6
            assert sockets >= 4
            for _ in range(4):
                assert not await event_stream(port, stack)
                assert await fetch(f"http://127.0.0.1:{port}/") == (200, b"the site\n")
            await stack.aclose()
            await eventually_async(lambda: websocket(port, stack), "room for another browser")
            await eventually_async(lambda: event_stream(port, stack), "room for another stream")


async def test_browsers_are_let_in_until_every_process_is_full() -> None:
    """An eighth of the processes with an eighth of the threads each, so that all of them start."""
    eighths = {"StartServers": 8, "ServerLimit": 8, "ThreadLimit": 8, "ThreadsPerChild": 8}
    squares = {"MaxRequestWorkers": 64, "MinSpareThreads": 64, "MaxSpareThreads": 64}
    sizes = scaled((CONF / "apache/aphlict-mpm.conf").read_text(), eighths | squares)

    async with running_node() as node, AsyncExitStack() as stack:
        port = free_port()
        text = scaled((CONF / "apache/aphlict-path.conf").read_text(), {"max": 8, "acquire": 100})
        with apache(text.replace("22280", str(node.client_port)), port, server=sizes):
            for _ in range(4 * 6):
                await eventually_async(lambda: websocket(port, stack), "room", timeout=20)
            assert not await websocket(port, stack)
            assert await fetch(f"http://127.0.0.1:{port}/") == (200, b"the site\n")


def scaled(text: str, parts: dict[str, int]) -> str:
    """Divide the numbers that belong to these names."""
    pattern = re.compile(rf"\b({'|'.join(parts)})(=| +)(\d+)\b")
    return pattern.sub(lambda found: f"{found[1]}{found[2]}{int(found[3]) // parts[found[1]]}", text)


def chatty() -> AbstractAsyncContextManager[RunningNode]:
    """Run a node that pings often: Apache notices a closed event stream only when it writes."""
    return running_node(ping__interval=0.1)


async def fill(port: int, enter: Callable[[], Awaitable[bool]]) -> int:
    """Connect clients until one is rejected, and return their number. The site responds throughout."""
    count = 0
    while await enter():
        count += 1
        assert await fetch(f"http://127.0.0.1:{port}/") == (200, b"the site\n")
    return count


async def websocket(port: int, stack: AsyncExitStack) -> bool:
    """Open a WebSocket and keep it; return whether it was accepted."""
    try:
        await stack.enter_async_context(connect(f"ws://127.0.0.1:{port}/ws/"))
    except InvalidStatus as error:
        if error.response.status_code == 503:
            return False
        raise
    return True


async def event_stream(port: int, stack: AsyncExitStack) -> bool:
    """Open an event stream and keep it; return whether it was accepted."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stack.push_async_callback(writer.wait_closed)
    stack.callback(writer.close)
    writer.write(b"GET /ws/events?channel=a HTTP/1.1\r\nHost: localhost\r\n\r\n")
    status = (await asyncio.wait_for(reader.readline(), 5)).split()[1]
    assert status in (b"200", b"503")
    if status == b"503":
        writer.close()
    return status == b"200"
