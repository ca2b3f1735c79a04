"""`origins` of a client server: which pages may listen, by WebSocket, event stream and poll."""

import json
import logging
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.curl import curl, event_source
from tests.support.loops import in_loop
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
    assert (refusal.status_code, list(json.loads(refusal.body))) == (403, ["error"])
    return False


@in_loop
async def test_upgrades() -> None:
    async with running_node(client=CONFIGURED) as node:
        assert await is_let_in(node, OURS)
        assert await is_let_in(node, "https://a.example.org")
        assert await is_let_in(node, None)
        assert not await is_let_in(node, OTHERS)
        assert not await is_let_in(node, "null")


@in_loop
async def test_where_nothing_is_configured_pages_of_all_origins_listen() -> None:
    async with running_node() as node:
        assert await is_let_in(node, OTHERS)
        answer = await curl(at(node, "/poll?channel=a&wait=0"), *by(OTHERS))
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "vary" not in answer.headers


@pytest.mark.parametrize("path", ["/events?channel=a", "/poll?channel=a&wait=0"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_events_polls_and_preflights_of_others_get_403(path: str, method: str) -> None:
    @in_loop
    async def run() -> None:
        async with running_node(client=CONFIGURED) as node:
            answer = await curl(at(node, path), "-X", method, *by(OTHERS))
            assert answer.status == 403
            assert OTHERS in answer.json["error"]
            assert answer.headers["vary"] == "Origin"
            assert "access-control-allow-origin" not in answer.headers
            assert (await node.status())["clients.total"] == 0

    run()


@in_loop
async def test_polls_and_preflights_of_ours_name_the_origin() -> None:
    async with running_node(client=CONFIGURED) as node:
        for method in ("GET", "OPTIONS"):
            answer = await curl(at(node, "/poll?channel=a&wait=0"), "-X", method, *by(OURS))
            assert answer.status < 300
            assert answer.headers["access-control-allow-origin"] == OURS
            assert answer.headers["vary"] == "Origin"
        bad = await curl(at(node, "/poll"), *by(OURS))
        assert bad.status == 400
        assert bad.headers["access-control-allow-origin"] == OURS


@in_loop
async def test_an_answer_without_an_origin_may_not_be_kept_for_others() -> None:
    async with running_node(client=CONFIGURED) as node:
        answer = await curl(at(node, "/poll?channel=a&wait=0"))
        assert answer.status == 200
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("keys", [{}, CONFIGURED])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_no_answer_has_to_do_with_cookies(keys: dict[str, Any], method: str) -> None:
    """So a page never acts with the rights of who looks at it."""

    @in_loop
    async def run() -> None:
        async with running_node(client=keys) as node:
            for path in ("/poll?channel=a&wait=0", "/events", "/status", "/aphlict.js", "/x"):
                answer = await curl(at(node, path), "-X", method, "-b", "a=b", *by(OURS))
                assert not {"set-cookie", "access-control-allow-credentials"} & set(answer.headers)

    run()


@in_loop
async def test_an_event_stream_of_ours() -> None:
    async with (
        running_node(client=CONFIGURED) as node,
        event_source(at(node, "/events?channel=a"), *by(OURS)) as source,
    ):
        assert f"Access-Control-Allow-Origin: {OURS}\r\nVary: Origin\r\n".encode() in source.head
        await node.publish({"subscribers": ["a"], "uniqueID": "one"})
        assert (await source.event()).json["uniqueID"] == "one"


@in_loop
async def test_what_everybody_may_have() -> None:
    async with running_node(client=CONFIGURED) as node:
        script = await curl(at(node, "/ws/aphlict.js"), *by(OTHERS))
        assert script.status == 200
        assert script.headers["access-control-allow-origin"] == "*"
        assert (await curl(at(node, "/ws/status"), *by(OTHERS))).status == 200
        assert (await curl(at(node, "/ws/"), *by(OTHERS))).status == 501


@in_loop
async def test_an_operator_sees_it(caplog: pytest.LogCaptureFixture) -> None:
    async with running_node(client=CONFIGURED) as node:
        for _ in range(3):
            assert not await is_let_in(node, OTHERS)
        assert (await node.status())["refused"]["origins"] == 3
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert lines == [f"origins was hit by 127.0.0.1 (a page of {OTHERS})"]


@in_loop
async def test_the_address_is_that_of_the_browser(caplog: pytest.LogCaptureFixture) -> None:
    async with running_node(client={**CONFIGURED, "proxy.trusted": ["127.0.0.1"]}) as node:
        headers = (*by(OTHERS), "-H", "X-Forwarded-For: 203.0.113.9")
        assert (await curl(at(node, "/poll?channel=a"), *headers)).status == 403
    assert "origins was hit by 203.0.113.9 " in caplog.text
