"""What has to work behind every proxy."""

import json
import ssl
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from websockets.asyncio.client import connect

from tests.support.nodes import RunningNode, command, receive


async def prove_websocket(
    node: RunningNode,
    url: str,
    *,
    instance: str = "default",
    tls: ssl.SSLContext | None = None,
    **options: Any,
) -> None:
    """A browser at this URL gets what is published to the instance, and is answered."""
    async with connect(url, ssl=tls, **options) as browser:
        await command(browser, "subscribe", ["a"])
        await node.publish({"subscribers": ["a"], "text": "x"}, instance=instance)
        assert (await receive(browser, 1))[0]["text"] == "x"
        await browser.send(json.dumps({"command": "ping"}))
        assert await receive(browser, 1) == [{"type": "pong"}]


async def prove_refusal(url: str, **options: Any) -> None:
    """A request without upgrade reaches the server, and gets its 501."""
    status, body = await fetch(url, **options)
    assert status == 501
    assert b"no upgrade" in body


async def prove_status(url: str, **options: Any) -> None:
    """…/status is passed through."""
    status, body = await fetch(url, **options)
    assert status == 200
    assert json.loads(body) == {"state": "RUNNING"}


async def fetch(url: str, **options: Any) -> tuple[int, bytes]:
    """The answer to a GET."""
    answer = await AsyncHTTPClient().fetch(HTTPRequest(url, **options), raise_error=False)
    return answer.code, answer.body


async def get(url: str) -> HTTPResponse:
    """The whole answer to a GET."""
    return await AsyncHTTPClient().fetch(url, raise_error=False)
