"""Error responses: the same JSON and header fields for all errors, on both ports."""

import json
import socket
from typing import Any

import pytest

from tests.support.curl import curl
from tests.support.nodes import running_node

OURS, OTHERS = "https://example.com", "https://evil.example"
LONG_HEAD = ("-H", "X: " + "x" * 9000)

CLIENT_ERRORS = [
    ("/", (), 501, "upgrade_required"),
    ("/poll", (), 400, "bad_request"),
    ("/poll?channel=a&channel=b", (), 400, "too_many_subscriptions"),
    ("/poll?channel=a", ("-X", "PUT"), 405, "method_not_allowed"),
    ("/poll?channel=a", ("-d", "x"), 501, "unexpected_body"),
    ("/poll?channel=a", ("-H", "Transfer-Encoding: gzip"), 400, "bad_request"),
    ("/status", LONG_HEAD, 431, "request_head_too_large"),
    ("/", ("-H", "Upgrade: websocket", "-H", "Connection: Upgrade"), 426, "unsupported_websocket_version"),
]


@pytest.mark.parametrize(("path", "options", "status", "code"), CLIENT_ERRORS)
async def test_every_page_may_read_errors_of_a_client_port_without_origins(
    path: str, options: tuple[str, ...], status: int, code: str
) -> None:
    async with running_node(limits__subscriptions=1) as node:
        answer = await curl(f"http://localhost:{node.client_port}{path}", *options, "-H", f"Origin: {OTHERS}")
        assert (answer.status, answer.json["code"]) == (status, code)
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(("path", "options", "status", "code"), CLIENT_ERRORS)
@pytest.mark.parametrize("origin", [OURS, None])
async def test_pages_of_other_origins_may_not_read_errors(
    origin: str | None, path: str, options: tuple[str, ...], status: int, code: str
) -> None:
    origins = {"origins": [OURS]}
    async with running_node(client=origins, limits__subscriptions=1) as node:
        field = ("-H", f"Origin: {origin}") if origin else ()
        answer = await curl(f"http://localhost:{node.client_port}{path}", *options, *field)
        if "localhost" in answer.json["error"]:  # no `Origin`, and not the host of one
            status, code = 403, "origin_forbidden"
        assert (answer.status, answer.json["code"]) == (status, code)
        is_parsed = "gzip" not in str(options) and options != LONG_HEAD
        allowed = origin if is_parsed else None
        assert answer.headers.get("access-control-allow-origin") == allowed
        assert answer.headers["vary"] == "Origin"


async def test_a_page_may_read_that_the_server_is_full() -> None:
    async with running_node(client={"origins": [OURS]}, limits__connections=1) as node:
        with socket.create_connection(("127.0.0.1", node.client_port)):
            url = f"http://localhost:{node.client_port}/events?channel=a"
            answer = await curl(url, "-H", f"Origin: {OURS}")
            assert (answer.status, answer.json["code"]) == (503, "too_many_connections")
            assert answer.headers["retry-after"] == "10"
            assert answer.headers["access-control-allow-origin"] == OURS


@pytest.mark.parametrize(
    ("path", "options", "status", "code"),
    [
        ("/", (), 405, "method_not_allowed"),
        ("/status/", ("-X", "DELETE"), 405, "method_not_allowed"),
        ("/nothing", (), 404, "not_found"),
        ("/?instance=%ff", ("-d", "{}"), 400, "bad_request"),
        ("/", ("-d", "{"), 400, "invalid_json"),
        ("/", ("-d", "{}"), 400, "no_subscribers"),
        ("/", ("-d", "[{}, {}]"), 413, "too_many_messages"),
        ("/", ("-d", "x" * 2000), 413, "body_too_large"),
        ("/", ("-H", "Origin: https://evil.example"), 403, "cross_site_request"),
        ("/", ("-H", "Host: evil.example"), 403, "host_not_allowed"),
        ("/", LONG_HEAD, 431, "request_head_too_large"),
    ],
)
async def test_errors_of_an_admin_port(path: str, options: tuple[str, ...], status: int, code: str) -> None:
    async with running_node(limits__batch=1, limits__body=1000) as node:
        answer = await curl(f"http://localhost:{node.admin_port}{path}", *options)
        assert (answer.status, answer.json["code"]) == (status, code)
        assert answer.json["error"]
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
        assert ("allow" in answer.headers) is (status == 405)


async def test_a_secret_is_requested_by_a_challenge() -> None:
    async with running_node(admin={"admin.secret": "x" * 16}) as node:
        answer = await curl(f"http://localhost:{node.admin_port}/status/")
        assert (answer.status, answer.json["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == (
            'Bearer realm="aphlict", Basic realm="aphlict", charset="UTF-8"'
        )


async def test_a_method_that_is_not_allowed_leaves_the_connection_open() -> None:
    async with running_node() as node:
        url = f"http://localhost:{node.admin_port}/"
        answer = await curl(f"{url}status/", url, "--next", "-sS", "-w", " connections: %{num_connects}")
        assert answer.status == 405
        assert answer.headers["connection"] == "keep-alive"
        assert answer.body.endswith(b" connections: 0")


async def test_an_unexpected_exception_is_a_500(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> None:
        raise ZeroDivisionError

    async with running_node() as node:
        monkeypatch.setattr(node.node, "publish", fail)
        answer = await curl(f"http://localhost:{node.admin_port}/", "-d", '{"subscribers": []}')
        assert answer.status == 500
        assert json.loads(answer.body)["code"] == "internal_error"
