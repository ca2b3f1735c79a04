"""What a browser has done is charged to `limits.commands` by its size, before it is done, and follows the address."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.server.test_limits import SILENCE, UPGRADE, hits, raw
from tests.support.clocks import Clock
from tests.support.nodes import RunningNode, command, running_node
from tests.support.proxied import v2
from tests.support.waiting import eventually

CHANNELS = [f"PHID-TASK-{number:020}" for number in range(1024)]


def frame(text: str) -> bytes:
    """A masked text frame; the mask changes nothing."""
    data = text.encode()
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + data


def order(name: str, data: Any, **more: Any) -> str:
    return json.dumps({"command": name, "data": data, **more})


def churn() -> Iterator[str]:
    """Subscriptions that come and go."""
    while True:
        yield order("subscribe", CHANNELS)
        yield order("unsubscribe", CHANNELS, id=1)


def junk() -> Iterator[str]:
    """No command, but an `id` that has to be found."""
    while True:
        yield '{"id":1,"x":[' + "[]," * 20_000 + "[]]}"


def short_names() -> Iterator[str]:
    while True:
        yield order("unsubscribe", [f"{number:x}" for number in range(8000)], id=1)


def many_words() -> Iterator[str]:
    """Words to resume after, positions of another node among them."""
    far = "~" + "x" * 16 + ".5.0." + "A" * 80 + "." + "A" * 40
    while True:
        yield order("replay", {"after": [f"{number}{far}" for number in range(200)] + [far] * 16}, id=1)


@pytest.mark.parametrize("texts", [churn, junk, short_names, many_words])
async def test_large_commands_reach_the_limit_soon(texts: Any, clock: Clock) -> None:
    """A small one costs a unit, and the burst is 200."""
    async with running_node() as node, raw(node.client_port) as flood:
        await node.publish(*({"subscribers": [name], "uniqueID": name} for name in CHANNELS))
        await flood.ask(UPGRADE)
        sent = 0
        source = texts()
        while node.node.hub.limit_counters.counts.get("limits.commands") is None:
            flood.writer.write(frame(next(source)))
            await asyncio.wait_for(flood.writer.drain(), 10)
            sent += 1
            assert sent < 50
            await asyncio.sleep(0)


async def test_a_command_is_done_once_it_has_been_paid(clock: Clock) -> None:
    limits: dict[str, Any] = {"limits__commands": 10, "limits__commands__burst": 60}
    async with running_node(**limits) as node, raw(node.client_port) as flood:
        channels = node.node.hub.instance("default").index
        await flood.ask(UPGRADE)
        flood.writer.write(frame(order("subscribe", CHANNELS[:1000])))  # 36 KB: 70 units
        await eventually(lambda: node.node.hub.limit_counters.counts.get("limits.commands"), "a pause")
        assert len(channels) == 0
        clock.advance(node, 8)
        await eventually(lambda: len(channels) == 1000, "the subscriptions")


async def test_a_debt_survives_a_reconnect(clock: Clock) -> None:
    async with running_node(limits__commands=10, limits__commands__burst=100) as node:
        async with raw(node.client_port) as flood:
            await flood.ask(UPGRADE)
            flood.writer.write(frame(order("subscribe", CHANNELS[:1000])))
            flood.writer.write(frame(order("unsubscribe", CHANNELS[:1000])))
            await eventually(lambda: node.node.hub.limit_counters.counts.get("limits.commands"), "a pause")
        await eventually(lambda: not node.node.hub.connections, "the end")
        async with raw(node.client_port) as again:
            again.writer.write(UPGRADE)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(again.reader.read(1), SILENCE)
            clock.advance(node, 1)
            assert b" 101 " in await asyncio.wait_for(again.reader.readuntil(b"\r\n\r\n"), 10)
        clock.advance(node, 60)
        async with connect(node.url()) as later:
            await command(later, "subscribe", ["A"])


async def upgraded(node: RunningNode, address: str) -> bool:
    """Whether a browser from this address is served at once."""
    async with raw(node.client_port) as browser:
        browser.writer.write(v2(address) + UPGRADE)
        try:
            head = await asyncio.wait_for(browser.reader.readuntil(b"\r\n\r\n"), SILENCE)
        except asyncio.TimeoutError:
            return False
        return b" 101 " in head


async def test_only_the_address_that_owes_pays(clock: Clock) -> None:
    client = {"proxy.protocol": True}
    async with running_node(client=client, limits__commands=10, limits__commands__burst=100) as node:
        async with raw(node.client_port) as flood:
            await flood.ask(v2("2001:db8::1") + UPGRADE)
            flood.writer.write(frame(order("subscribe", CHANNELS)) * 2)
            await eventually(lambda: node.node.hub.limit_counters.counts.get("limits.commands"), "a pause")
        await eventually(lambda: not node.node.hub.connections, "the end")
        assert not await upgraded(node, "2001:db8::2")
        assert await upgraded(node, "2001:db8:0:1::1")
        assert await upgraded(node, "192.0.2.1")


async def test_a_browser_behind_a_proxy_pays_for_itself(clock: Clock) -> None:
    """All requests come over one connection of the proxy's."""
    query = "&".join(f"channel={name}" for name in CHANNELS[:200])

    def poll(address: str) -> bytes:
        return f"GET /poll?wait=0&{query} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\n\r\n".encode()

    client = {"proxy.trusted": ["127.0.0.1"]}
    limits: dict[str, Any] = {"limits__commands": 10, "limits__commands__burst": 100}
    async with running_node(client=client, **limits) as node, raw(node.client_port) as proxy:
        for _ in range(4):  # 28 units each
            assert await hits(node, "limits.commands") == 0
            assert b" 200 " in await proxy.ask_on(poll("192.0.2.1"))
        assert await hits(node, "limits.commands") == 1
        clock.advance(node, 0.25)
        assert b" 200 " in await proxy.ask_on(poll("192.0.2.2"))
        assert await hits(node, "limits.commands") == 1
        proxy.writer.write(poll("192.0.2.1"))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(proxy.reader.read(1), SILENCE)
        clock.advance(node, 5)
        assert b" 200 " in await proxy.ask_on(b"")
