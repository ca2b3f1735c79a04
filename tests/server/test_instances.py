"""Names of instances: both ports decode them in the same way."""

import asyncio
from urllib.parse import quote

import pytest

import aphlict
from tests.support.nodes import receive, running_node, subscribed

ODD_NAMES = ["a~b", "~", "a/b", "/", "..", "a b", "a+b", "%7E", "%", "?x=1&y#z", "café", "\0\r\n"]


def segment(name: str) -> str:
    """The segment of a path that names an instance; `quote` leaves `~`, which ends a name, as it is."""
    return f"~{quote(name, safe='').replace('~', '%7E')}/"


async def test_an_unusual_name_reaches_its_own_instance_only() -> None:
    async with running_node() as node:
        server = f"http://127.0.0.1:{node.admin_port}/"
        browsers = {name: await subscribed(node.url(f"/ws/{segment(name)}"), "a") for name in ODD_NAMES}
        for name in ODD_NAMES:
            receipt = await aphlict.publish_async({"for": name}, ["a"], servers=[server], instance=name)
            assert receipt.matched == 1
        for name, browser in browsers.items():
            assert [message["for"] for message in await receive(browser, 1)] == [name]
            await browser.close()


async def status_of(port: int, target: bytes, *fields: bytes) -> bytes:
    """Return the status of the response to a request whose target is sent unchanged."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"subscribers":["a"]}' if target.startswith(b"POST") else b""
    lines = [target + b" HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % len(body), *fields, b"", body]
    writer.write(b"\r\n".join(lines))
    status = (await reader.readline()).split()[1]
    writer.close()
    return status


UPGRADE = (
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


async def test_utf8_without_percent_encoding_is_decoded_on_both_ports() -> None:
    async with running_node() as node:
        assert await status_of(node.client_port, "GET /~café/".encode(), *UPGRADE) == b"101"
        browser = await subscribed(node.url("/~caf%C3%A9/"), "a")
        assert await status_of(node.admin_port, "POST /?instance=café".encode()) == b"200"
        assert len(await receive(browser, 1)) == 1
        await browser.close()


@pytest.mark.parametrize("name", [b"%FF", b"\xe9", b"%ED%A0%80", b"x" * 257, "é".encode() * 129])
async def test_an_invalid_name_is_rejected_on_both_ports(name: bytes) -> None:
    async with running_node() as node:
        assert await status_of(node.client_port, b"GET /~%b/" % name, *UPGRADE) == b"400"
        assert await status_of(node.client_port, b"GET /~%b/poll?channel=a&wait=0" % name) == b"400"
        assert await status_of(node.admin_port, b"POST /?instance=%b" % name) == b"400"
        assert await status_of(node.admin_port, b"GET /status/?instance=%b" % name) == b"400"
