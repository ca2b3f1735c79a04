"""Requests that two servers in a row could parse differently are refused, and the connection ends."""

import asyncio
import json

import pytest

from tests.support.heads import MALFORMED, Malformed
from tests.support.nodes import RunningNode, running_node

HIDDEN = b"GET /status/ HTTP/1.1\r\nHost: hidden\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
PORTS = pytest.mark.parametrize("port", ["client", "admin"])


async def exchange(node: RunningNode, port: str, *pieces: bytes) -> bytes:
    """Return all received data until the server closes the connection."""
    number = node.client_port if port == "client" else node.admin_port
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


def check_rejected(answer: bytes, status: int) -> None:
    """Check for one error response: what follows the request was not parsed as another one."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close" in head
    assert list(json.loads(body)) == ["error", "code"]


@PORTS
@pytest.mark.parametrize("malformed", MALFORMED, ids=str)
async def test_a_malformed_request_is_rejected(malformed: Malformed, port: str) -> None:
    async with running_node() as node:
        check_rejected(await exchange(node, port, malformed.data + HIDDEN), malformed.status)


@PORTS
@pytest.mark.parametrize("malformed", MALFORMED, ids=str)
async def test_a_malformed_request_is_rejected_a_byte_at_a_time(malformed: Malformed, port: str) -> None:
    pieces = [malformed.data[i : i + 1] for i in range(min(len(malformed.data), 300))]
    async with running_node() as node:
        answer = await exchange(node, port, *pieces, malformed.data[300:] + HIDDEN)
        check_rejected(answer, malformed.status)


@pytest.mark.parametrize(
    "body",
    [
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"2 \r\n{}\r\n0\r\n\r\n",
        b"2\n{}",
        b"2\r\n{}ab",
        b"0\r\n\n",
    ],
)
async def test_malformed_chunks_are_rejected_immediately(body: bytes) -> None:
    async with running_node() as node:
        check_rejected(await exchange(node, "admin", CHUNKED + body + HIDDEN), 400)
        check_rejected(await exchange(node, "admin", CHUNKED + body), 400)
        check_rejected(await exchange(node, "client", CHUNKED + body + HIDDEN), 501)
        assert (await node.status())["messages.in"] == 0


async def test_a_request_after_a_chunked_body_is_parsed_strictly() -> None:
    body = b'{"subscribers": ["a"]}'
    hidden = b"POST / HTTP/1.1\nContent-Length: %d\n\n%b" % (len(body), body)
    async with running_node() as node:
        answer = await exchange(
            node, "admin", CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) + hidden
        )
        assert answer.startswith(b"HTTP/1.1 200 ")
        _, _, following = answer.partition(b"}HTTP/1.1")
        check_rejected(b"HTTP/1.1" + following, 400)
        assert (await node.status())["messages.in"] == 1


async def test_an_upgrade_with_a_body_is_rejected() -> None:
    head = (
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 100\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with running_node() as node:
        check_rejected(await exchange(node, "client", head + HIDDEN), 501)


CLIENT_PATHS = ("/poll?channel=a&wait=0", "/events?channel=a", "/status", "/aphlict.js", "/", "/ws/~a/poll")
FRAMINGS = {
    "length": b"Content-Length: %d\r\n\r\n%b" % (len(HIDDEN), HIDDEN),
    "length and 100-continue": b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n%b"
    % (len(HIDDEN), HIDDEN),
    "a length that is kept back": b"Content-Length: 1\r\n\r\n" + HIDDEN,
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN),
    "chunks that are none": b"Transfer-Encoding: chunked\r\n\r\n" + HIDDEN,
}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT"])
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_body_on_the_client_port_is_not_parsed_as_a_request(method: str, framing: str) -> None:
    """A proxy that reuses its connections would pass the responses to the wrong clients."""
    async with running_node() as node:
        for path in CLIENT_PATHS:
            start = f"{method} {path} HTTP/1.1\r\nHost: x\r\n".encode()
            answer = await exchange(node, "client", start + FRAMINGS[framing] + HIDDEN)
            assert answer.count(b"HTTP/1.1 ") == 1, path
            if method == "HEAD":
                assert answer.startswith(b"HTTP/1.1 501 ")
                assert answer.endswith(b"\r\n\r\n")
            else:
                check_rejected(answer, 501)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("framing", ["length", "length and 100-continue", "chunks"])
async def test_a_body_on_the_admin_port_belongs_to_its_request(method: str, framing: str) -> None:
    last = b"GET /status/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with running_node() as node:
        start = (
            f"{method} /status/ HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n".encode()
        )
        answer = await exchange(node, "admin", start + FRAMINGS[framing] + last)
        answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert answer.count(b"HTTP/1.1 ") == 2


@PORTS
async def test_an_error_response_to_head_has_no_body(port: str) -> None:
    """A client would parse the body as the next response."""
    fields = b"Host: x\r\nOrigin: https://a.example\r\nUpgrade: websocket\r\n\r\n"
    async with running_node() as node:
        answer = await exchange(node, port, b"HEAD / HTTP/1.1\r\n" + fields)
        assert answer.startswith(b"HTTP/1.1 4")
        assert answer.endswith(b"\r\n\r\n")
