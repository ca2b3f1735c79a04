"""Checks that must pass behind every proxy."""

import asyncio
import json
import ssl
from dataclasses import dataclass
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from websockets.asyncio.client import connect

from tests.support.nodes import RunningNode, command, receive
from tests.support.waiting import eventually_async

SECONDS = 5


@dataclass(frozen=True)
class ProxiedRoute:
    """A route from a client through a proxy to a node: `path` ends with a slash, `cookie` is sent by the client."""

    node: RunningNode
    port: int
    path: str = "/ws/"
    instance: str = "default"
    host: str | None = None
    tls: ssl.SSLContext | None = None
    cookie: str = ""

    async def check(self) -> None:
        """Check WebSocket, event stream, long poll and status."""
        await self.check_websocket()
        await self.check_long_poll()
        await self.check_event_stream()
        assert json.loads(await self._get("status")) == {"state": "RUNNING"}

    async def check_websocket(self) -> None:
        """A client receives what is published to the instance, and its commands are answered."""
        async with connect(self._url, ssl=self.tls, **self._connect_options()) as browser:
            await command(browser, "subscribe", ["a"])
            await self._publish("by WebSocket")
            assert (await receive(browser, 1))[0]["text"] == "by WebSocket"
            await browser.send(json.dumps({"command": "ping"}))
            assert await receive(browser, 1) == [{"type": "pong"}]

    async def check_event_stream(self) -> None:
        """An event arrives immediately, while the stream stays open."""
        reader, writer = await self._ask("events?channel=a", {"Accept-Encoding": "gzip"})
        await asyncio.wait_for(reader.readuntil(b"retry: "), SECONDS)
        await self._publish("by event")
        await asyncio.wait_for(reader.readuntil(b'"by event"'), SECONDS)
        writer.transport.abort()  # browsers disconnect without a TLS or WebSocket close

    async def check_long_poll(self) -> None:
        """A poll waits for a message, and the next one resumes after it."""
        await eventually_async(lambda: self._has(0), "all else to end")
        waiting = asyncio.create_task(self._get("poll?channel=a&wait=20"))
        await eventually_async(lambda: self._has(1), "the poll to arrive")
        await self._publish("by poll")
        answer = json.loads(await waiting)
        assert [each["text"] for each in answer["messages"]] == ["by poll"]
        again = json.loads(await self._get(f"poll?channel=a&wait=0&after={answer['last']}"))
        assert again["messages"] == []
        assert again["recovered"]

    async def _has(self, count: int) -> bool:
        return bool((await self.node.status(self.instance))["clients.active"] == count)

    async def _publish(self, text: str) -> None:
        receipt = await self.node.publish({"subscribers": ["a"], "text": text}, instance=self.instance)
        assert receipt["matched"] >= 1

    @property
    def _url(self) -> str:
        scheme = "wss" if self.tls else "ws"
        return f"{scheme}://{self.host or f'localhost:{self.port}'}{self.path}"

    def _connect_options(self) -> dict[str, Any]:
        headers = {"Cookie": self.cookie} if self.cookie else {}
        return {"host": "127.0.0.1", "port": self.port, "additional_headers": headers}

    async def _get(self, page: str) -> bytes:
        """Return the body of a 200 response."""
        reader, writer = await self._ask(page, {"Connection": "close"})
        answer = await asyncio.wait_for(reader.read(), SECONDS)
        writer.transport.abort()  # browsers disconnect without a TLS or WebSocket close
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), answer
        return body

    async def _ask(
        self, page: str, headers: dict[str, str]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = "localhost" if self.tls else None
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.tls, server_hostname=name
        )
        fields = {
            "Host": self.host or f"localhost:{self.port}",
            "Cookie": self.cookie or "none=none",
            **headers,
        }
        lines = [f"GET {self.path}{page} HTTP/1.1", *(f"{key}: {value}" for key, value in fields.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        return reader, writer


async def prove_refusal(url: str, **options: Any) -> None:
    """A request without upgrade reaches the server, which responds with 501."""
    status, body = await fetch(url, **options)
    assert status == 501
    assert b"no upgrade" in body


async def fetch(url: str, **options: Any) -> tuple[int, bytes]:
    """Return the status line and head of the response to a GET."""
    answer = await AsyncHTTPClient().fetch(HTTPRequest(url, **options), raise_error=False)
    return answer.code, answer.body


async def get(url: str) -> HTTPResponse:
    """Return the complete response to a GET."""
    return await AsyncHTTPClient().fetch(url, raise_error=False)
