"""Rules of RFC 9110 for every response, on both ports."""

import asyncio
import time
from email.utils import parsedate_to_datetime

import pytest

from aphlict.server.client_port import prefers_gzip
from tests.support.nodes import RunningNode, running_node

UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
KEEP = b"Connection: keep-alive\r\n"
BODY = b'{"subscribers":[]}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)

REQUESTS = [
    ("admin", b"GET /status/ HTTP/1.1", b"", 200),
    ("admin", b"POST / HTTP/1.1", LENGTH, 200),
    ("admin", b"GET / HTTP/1.1", b"", 405),
    ("admin", b"GET /x HTTP/1.1", b"", 404),
    ("admin", b"GET /status/ HTTP/1.1", b"Origin: https://a.example\r\n", 403),
    ("admin", b"GET /status/ HTTP/1.1", b"no header\r\n", 400),
    ("client", b"GET / HTTP/1.1", b"", 501),
    ("client", b"GET /status HTTP/1.1", b"", 200),
    ("client", b"HEAD /aphlict.js HTTP/1.1", b"", 200),
    ("client", b"GET /poll?channel=a&wait=0 HTTP/1.1", b"", 200),
    ("client", b"GET /events?channel=a HTTP/1.1", b"", 200),
    ("client", b"OPTIONS /poll HTTP/1.1", b"", 204),
    ("client", b"GET /poll HTTP/1.1", b"", 400),
    ("client", b"PUT /events HTTP/1.1", b"", 405),
    ("client", b"GET / HTTP/1.1", UPGRADE + b"Sec-WebSocket-Version: 8\r\n", 426),
]


async def ask(node: RunningNode, port: str, request: bytes) -> tuple[int, dict[str, str]]:
    """Send a request followed by BODY, and return status and fields of the first response."""
    number = node.client_port if port == "client" else node.admin_port
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    writer.write(request + BODY * (LENGTH in request))
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode()
    writer.close()
    start, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    fields = [line.split(": ", 1) for line in lines]
    assert len({name.lower() for name, _ in fields}) == len(fields), "a field that comes once comes twice"
    return int(start.split(" ")[1]), {name.lower(): value for name, value in fields}


@pytest.mark.parametrize(("port", "start", "fields", "status"), REQUESTS, ids=lambda value: str(value)[:40])
async def test_every_response_has_a_date(port: str, start: bytes, fields: bytes, status: int) -> None:
    async with running_node() as node:
        began = int(time.time())
        found, headers = await ask(node, port, start + b"\r\nHost: x\r\n" + fields + b"\r\n")
        assert found == status
        assert headers["date"].endswith(" GMT")
        assert began <= parsedate_to_datetime(headers["date"]).timestamp() <= time.time()


async def test_a_response_without_a_body_has_no_length() -> None:
    async with running_node() as node:
        _, headers = await ask(node, "client", b"OPTIONS /events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert "content-length" not in headers
        request = b"GET /aphlict.js HTTP/1.1\r\nHost: x\r\n"
        _, headers = await ask(node, "client", request + b"\r\n")
        match = b"If-None-Match: %b\r\n\r\n" % headers["etag"].encode()
        status, headers = await ask(node, "client", request + match)
        assert status == 304
        assert "content-length" not in headers


async def test_an_unknown_websocket_version_gets_the_supported_one() -> None:
    async with running_node() as node:
        old = b"Sec-WebSocket-Version: 8\r\n\r\n"
        status, headers = await ask(node, "client", b"GET / HTTP/1.1\r\nHost: x\r\n" + UPGRADE + old)
        assert status == 426
        assert headers["upgrade"] == "websocket"
        assert headers["sec-websocket-version"] == "13"
        assert set(headers["connection"].lower().split(", ")) == {"close", "upgrade"}


@pytest.mark.parametrize(("minor", "status"), [(0, 200), (1, 100)])
async def test_only_http_1_1_gets_100_continue(minor: int, status: int) -> None:
    async with running_node() as node:
        request = b"POST / HTTP/1.%d\r\nHost: x\r\nExpect: 100-continue\r\n%b\r\n" % (minor, LENGTH)
        found, _ = await ask(node, "admin", request)
        assert found == status


@pytest.mark.parametrize(("port", "path"), [("admin", b"/status/"), ("client", b"/poll?channel=a&wait=0")])
async def test_http_1_0_connections_are_kept_if_both_sides_ask(port: str, path: bytes) -> None:
    async with running_node() as node:
        for field, expected in ((KEEP, "keep-alive"), (b"", "close")):
            _, headers = await ask(node, port, b"GET %b HTTP/1.0\r\n%b\r\n" % (path, field))
            assert headers["connection"] == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", False),
        ("gzip", True),
        ("GZip", True),
        ("br, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip ; q=0.000", False),
        ("gzip;q=0, *", False),
        ("*", True),
        ("*;q=0", False),
        ("identity", False),
        ("identity;q=0.5, gzip;q=1.0", True),
        ("identity, gzip;q=0.5", False),
        ("deflate, br", False),
        ("gzip;q=2", False),
        ("gzip;level=9", False),
        ("notgzip", False),
    ],
)
def test_accept_encoding(header: str, expected: bool) -> None:
    assert prefers_gzip(header) is expected
