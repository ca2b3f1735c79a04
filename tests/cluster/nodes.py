"""Fake peers: HTTP servers that respond as a test wants, or relay as the Node.js server does."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.netutil import bind_sockets
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from aphlict.config.settings import PeerSettings
from tests.support.waiting import eventually

HOST = "127.0.0.1"
NOBODY = PeerSettings(host=HOST, port=1)  # where nothing listens

Node = TypeVar("Node", bound="FakeNode")


class Post(NamedTuple):
    """A POST as it arrived."""

    instance: str
    objects: list[dict[str, Any]]
    is_list: bool


class Reply(NamedTuple):
    """A response."""

    status: int
    body: bytes
    headers: dict[str, str] = {}  # noqa: RUF012 -- never changed


def reply(status: int, **fields: object) -> Reply:
    """A response with JSON."""
    return Reply(status, json.dumps(fields).encode())


class FakeNode:
    """A peer. `respond` may replace its responses; with `is_hung`, it does not respond.

    `reports` are those of its status: None for a node of a version that does not number messages.
    """

    def __init__(self, fingerprint: str, tls: ssl.SSLContext | None = None, idle: float = 3600) -> None:
        self.fingerprint = fingerprint
        self.reports: Mapping[str, Sequence[float | None]] | None = None
        self.posts: list[Post] = []
        self.greetings: list[str] = []  # of the requests that were answered
        self.looks = 0
        self.connections = 0
        self.is_hung = False
        self.respond: Callable[[HTTPServerRequest], Reply | None] = lambda _request: None
        self.port = 0
        self._tls = tls
        self._idle = idle
        self._seen: set[object] = set()
        self._server: HTTPServer | None = None

    @property
    def settings(self) -> PeerSettings:
        """Its entry in the configuration of another node."""
        return PeerSettings(host=HOST, port=self.port, protocol="https" if self._tls else "http")

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All objects that it received, in order."""
        return [each for post in self.posts for each in post.objects]

    @property
    def texts(self) -> list[str]:
        """Their `text` fields."""
        return [each["text"] for each in self.messages]

    async def got(self, count: int) -> None:
        """Wait until it has received so many messages."""
        await eventually(lambda: len(self.messages) >= count, f"{count} messages at {self.fingerprint}")

    def start(self: Node) -> Node:
        """Listen on a free port, or again on the former one."""
        self._server = HTTPServer(self._on_request, ssl_options=self._tls, idle_connection_timeout=self._idle)
        sockets = bind_sockets(self.port, HOST)
        self.port = sockets[0].getsockname()[1]
        self._server.add_sockets(sockets)
        return self

    async def __aenter__(self: Node) -> Node:
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Stop."""
        await self.stop()

    async def stop(self) -> None:
        """Close the listener and all connections."""
        if self._server is not None:
            self._server.stop()
            await self._server.close_all_connections()
            self._server = None

    def _on_request(self, request: HTTPServerRequest) -> None:
        if request.connection not in self._seen:
            assert request.connection is not None
            stream = request.connection.stream  # type: ignore[attr-defined]
            if stream not in self._seen:
                self._seen.add(stream)
                self.connections += 1
        if not self.is_hung:
            self.greetings.append(request.headers.get("X-Aphlict-Origin", ""))
            send(request, self.respond(request) or self._answer(request))

    def _answer(self, request: HTTPServerRequest) -> Reply:
        if request.method == "GET":
            self.looks += 1
            numbers = {} if self.reports is None else {"origins": self.reports}
            return reply(200, version=7, fingerprint=self.fingerprint, **numbers)
        post = read_post(request)
        self.posts.append(post)
        receipts = [{"uniqueID": each["uniqueID"], "matched": 0} for each in post.objects]
        if post.is_list:
            return reply(200, fingerprint=self.fingerprint, receipts=receipts)
        return reply(200, fingerprint=self.fingerprint, **receipts[0])


class NodeJsServer(FakeNode):
    """Relays as the Node.js server does: to each peer immediately, without queue, retries and `uniqueID`."""

    def __init__(self, fingerprint: str, idle: float = 5) -> None:
        super().__init__(fingerprint, idle=idle)
        self.delivered: list[dict[str, Any]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self._peers: dict[int, str | None] = {}
        self._client = SimpleAsyncHTTPClient(force_instance=True)

    def join(self, *ports: int) -> None:
        """Use these admin ports as peers."""
        self._peers = dict.fromkeys(ports)

    async def stop(self) -> None:
        """Stop, and cancel what it was sending."""
        for task in self.tasks:
            task.cancel()
        self._client.close()
        await super().stop()

    def _answer(self, request: HTTPServerRequest) -> Reply:
        if request.method == "GET":
            self.looks += 1
            return reply(200, version=7, instance="default")
        post = read_post(request)
        if post.is_list:
            return Reply(HTTPStatus.INTERNAL_SERVER_ERROR, b"")
        self.posts.append(post)
        message = dict(post.objects[0])
        touched = message.get("touched", [])
        if self.fingerprint not in touched:
            message["touched"] = [*touched, self.fingerprint]
            self.delivered.append(message)
            self._broadcast(post.instance, message)
        return reply(200, fingerprint=self.fingerprint)

    def _broadcast(self, instance: str, message: dict[str, Any]) -> None:
        for port, fingerprint in self._peers.items():
            if fingerprint is None or fingerprint not in message["touched"]:
                task = asyncio.get_running_loop().create_task(self._send(port, instance, message))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)

    async def _send(self, port: int, instance: str, message: dict[str, Any]) -> None:
        url = f"http://{HOST}:{port}/?instance={instance}"
        answer = await self._client.fetch(url, method="POST", body=json.dumps(message), raise_error=False)
        if answer.code == HTTPStatus.OK:
            self._peers[port] = json.loads(answer.body)["fingerprint"]


@asynccontextmanager
async def started(*fingerprints: str) -> AsyncIterator[list[FakeNode]]:
    """Run peers with these fingerprints."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(FakeNode(name).start()) for name in fingerprints]


def read_post(request: HTTPServerRequest) -> Post:
    """Parse a POST."""
    assert request.path == "/"
    content = json.loads(request.body)
    instance = unquote(request.query.removeprefix("instance="))
    return Post(instance, content if isinstance(content, list) else [content], isinstance(content, list))


def send(request: HTTPServerRequest, answer: Reply) -> None:
    """Send a response."""
    assert request.connection is not None
    headers = HTTPHeaders({"Content-Length": str(len(answer.body)), **answer.headers})
    start = ResponseStartLine("HTTP/1.1", answer.status, HTTPStatus(answer.status).phrase)
    request.connection.write_headers(start, headers, answer.body)
    request.connection.finish()
