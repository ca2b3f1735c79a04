"""`origins` of a client port: which pages may subscribe, over WebSockets, event streams and polls."""

import asyncio
import json
import logging
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.curl import curl, event_source
from tests.support.nodes import RunningNode, running_node

OURS, OTHERS = "https://phorge.example.com", "https://evil.example"
CONFIGURED: dict[str, Any] = {"origins": [OURS, "*.example.org"]}


def at(node: RunningNode, path: str) -> str:
    return f"http://localhost:{node.client_port}{path}"


def by(origin: str) -> tuple[str, str]:
    return "-H", f"Origin: {origin}"


async def is_let_in(node: RunningNode, origin: str | None) -> bool:
    headers = {} if origin is None else {"Origin": origin}
    try:
        async with connect(node.url(), additional_headers=headers):
            return True
    except InvalidStatus as error:
        refusal = error.response
    assert (refusal.status_code, list(json.loads(refusal.body))) == (403, ["error", "code"])
    return False


async def test_upgrades() -> None:
    async with running_node(client=CONFIGURED) as node:
        assert await is_let_in(node, OURS)
        assert await is_let_in(node, "https://a.example.org")
        assert await is_let_in(node, None)
        assert not await is_let_in(node, OTHERS)
        assert not await is_let_in(node, "null")


async def test_without_origins_pages_of_all_origins_may_subscribe() -> None:
    async with running_node() as node:
        assert await is_let_in(node, OTHERS)
        answer = await curl(at(node, "/poll?channel=a&wait=0"), *by(OTHERS))
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "vary" not in answer.headers


@pytest.mark.parametrize("path", ["/events?channel=a", "/poll?channel=a&wait=0"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_streams_polls_and_preflights_of_other_origins_get_403(path: str, method: str) -> None:
    async with running_node(client=CONFIGURED) as node:
        answer = await curl(at(node, path), "-X", method, *by(OTHERS))
        assert (answer.status, answer.json["code"]) == (403, "origin_forbidden")
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-origin" not in answer.headers
        assert (await node.status())["clients.total"] == 0


async def test_polls_and_preflights_of_allowed_origins_get_cors_fields() -> None:
    async with running_node(client=CONFIGURED) as node:
        for method in ("GET", "OPTIONS"):
            answer = await curl(at(node, "/poll?channel=a&wait=0"), "-X", method, *by(OURS))
            assert answer.status < 300
            assert answer.headers["access-control-allow-origin"] == OURS
            assert answer.headers["vary"] == "Origin"
        bad = await curl(at(node, "/poll"), *by(OURS))
        assert bad.status == 400
        assert bad.headers["access-control-allow-origin"] == OURS


async def test_responses_vary_by_origin() -> None:
    async with running_node(client=CONFIGURED) as node:
        answer = await curl(at(node, "/poll?channel=a&wait=0"))
        assert answer.status == 200
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("keys", [{}, CONFIGURED])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_no_response_allows_credentials(keys: dict[str, Any], method: str) -> None:
    """So a page cannot act with the rights of its user."""

    async with running_node(client=keys) as node:
        for path in ("/poll?channel=a&wait=0", "/events", "/status", "/aphlict.js", "/x"):
            answer = await curl(at(node, path), "-X", method, "-b", "a=b", *by(OURS))
            assert not {"set-cookie", "access-control-allow-credentials"} & set(answer.headers)


async def test_an_event_stream_of_an_allowed_origin() -> None:
    async with (
        running_node(client=CONFIGURED) as node,
        event_source(at(node, "/events?channel=a"), *by(OURS)) as source,
    ):
        assert f"Access-Control-Allow-Origin: {OURS}\r\nVary: Origin\r\n".encode() in source.head
        await node.publish({"subscribers": ["a"], "uniqueID": "one"})
        assert (await source.event()).json["uniqueID"] == "one"


async def status_of(node: RunningNode, path: str, **headers: str | None) -> int:
    """Return the status of a request with these header fields (`_` for a hyphen) and no others."""
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items() if value)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.client_port)
    writer.write(f"GET {path} HTTP/1.1\r\n{fields}\r\n".encode())
    try:
        line = await asyncio.wait_for(reader.readline(), 10)
        return int(line.split()[1])
    finally:
        writer.close()


@pytest.mark.parametrize("path", ["/poll?channel=a&wait=0", "/events?channel=a"])
@pytest.mark.parametrize(
    ("host", "site", "origin", "status"),
    [
        ("localhost:22280", None, None, 200),
        ("127.0.0.1:22280", "same-origin", None, 200),
        ("[::1]:22280", None, None, 200),
        ("notify", None, None, 200),
        ("notify.internal", None, None, 200),
        ("phorge.example.com", None, None, 200),
        ("phorge.example.com", "same-origin", None, 200),
        ("phorge.example.com", "none", None, 200),
        ("PHORGE.example.com.:8443", None, None, 200),
        ("a.example.org", None, None, 200),
        ("evil.example:22280", None, None, 403),
        ("evil.example:22280", "same-origin", None, 403),
        ("evil.example:22280", "none", None, 403),
        ("example.org", None, None, 403),
        ("phorge.example.com.evil.example", None, None, 403),
        ("evil-phorge.example.com", None, None, 403),
        ("phorge.example.com@evil.example", None, None, 403),
        ("phorge.example.com", "cross-site", None, 403),
        ("phorge.example.com", "same-site", None, 403),
        ("127.0.0.1", "cross-site", None, 403),
        ("evil.example", "cross-site", OURS, 200),
        ("evil.example", "same-origin", "http://evil.example", 403),
        ("phorge.example.com", "cross-site", OTHERS, 403),
    ],
)
async def test_requests_without_an_origin(
    path: str, host: str, site: str | None, origin: str | None, status: int
) -> None:
    """A page whose name resolves to this server (DNS rebinding) sends none, nor Sec-Fetch-Site over plain HTTP."""
    async with running_node(client=CONFIGURED) as node:
        assert await status_of(node, path, Host=host, Sec_Fetch_Site=site, Origin=origin) == status
        assert (await node.status())["refused"]["origins"] == (status == 403)


async def test_without_origins_every_host_is_accepted() -> None:
    async with running_node() as node:
        path = "/poll?channel=a&wait=0"
        assert await status_of(node, path, Host="evil.example", Sec_Fetch_Site="cross-site") == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/poll?channel=a&wait=0", 200),
        ("/poll", 400),
        ("/ws/status", 200),
        ("/ws/", 501),
    ],
)
@pytest.mark.parametrize("keys", [{}, CONFIGURED])
async def test_responses_cannot_be_embedded_by_other_origins(
    path: str, status: int, keys: dict[str, Any]
) -> None:
    async with running_node(client=keys) as node:
        answer = await curl(at(node, path))
        assert answer.status == status
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_event_streams_cannot_be_embedded() -> None:
    async with running_node() as node, event_source(at(node, "/events?channel=a")) as source:
        assert (
            b"X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n" in source.head
        )


async def test_responses_of_an_admin_port_cannot_be_embedded() -> None:
    async with running_node() as node:
        for path, options in (("/status/", ()), ("/", ("-X", "GET")), ("/nothing", ())):
            answer = await curl(f"http://localhost:{node.admin_port}{path}", *options)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_script_and_health_check_are_for_all_origins() -> None:
    async with running_node(client=CONFIGURED) as node:
        script = await curl(at(node, "/ws/aphlict.js"), *by(OTHERS))
        assert script.status == 200
        assert script.headers["access-control-allow-origin"] == "*"
        assert (await curl(at(node, "/ws/status"), *by(OTHERS))).status == 200
        assert (await curl(at(node, "/ws/"), *by(OTHERS))).status == 501


async def test_refused_origins_are_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with running_node(client=CONFIGURED) as node:
        for _ in range(3):
            assert not await is_let_in(node, OTHERS)
        assert (await node.status())["refused"]["origins"] == 3
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert lines == [f"origins refused 127.0.0.1 (a page of {OTHERS})"]


async def test_the_logged_address_is_the_clients(caplog: pytest.LogCaptureFixture) -> None:
    async with running_node(client={**CONFIGURED, "proxy.trusted": ["127.0.0.1"]}) as node:
        headers = (*by(OTHERS), "-H", "X-Forwarded-For: 203.0.113.9")
        assert (await curl(at(node, "/poll?channel=a"), *headers)).status == 403
    assert "origins refused 203.0.113.9 " in caplog.text
