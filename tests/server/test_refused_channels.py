"""A request for several channels of which some are refused: the response names them on every transport."""

from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.server.test_tokens import guarded
from tests.support.curl import curl, event_source
from tests.support.nodes import RunningNode, command, running_node
from tests.support.tokens import LEEWAY, token

TRANSPORTS = ["websocket", "events", "poll"]
SHOWN = token("a", "b-*")


async def refusal(node: RunningNode, transport: str, *channels: str) -> tuple[int, dict[str, Any]]:
    """Return the status and the keys of an error."""
    if transport == "websocket":
        async with connect(node.url(f"/?token={SHOWN}")) as browser:
            answer = await command(browser, "subscribe", list(channels))
            return answer.pop("status"), answer
    query = "&".join(f"channel={channel}" for channel in channels)
    url = f"http://localhost:{node.client_port}/{transport}?{query}&token={SHOWN}"
    found = await curl(url)
    return found.status, found.json


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_channels_that_a_token_does_not_allow(transport: str, tmp_path: Path) -> None:
    async with running_node(client=guarded(tmp_path)) as node:
        status, answer = await refusal(node, transport, "a", "secret", "b-1", "c")
        assert (status, answer["channels"]) == (403, ["secret", "c"])


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_channels_whose_names_are_too_long(transport: str) -> None:
    async with running_node(limits__name=7) as node:
        status, answer = await refusal(node, transport, "a", "too-long", "b", "much-too-long")
        assert (status, answer["channels"]) == (400, ["too-long", "much-too-long"])


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_channels_beyond_the_limit(transport: str) -> None:
    async with running_node(limits__subscriptions=2) as node:
        status, answer = await refusal(node, transport, "a", "b", "c", "d")
        assert (status, answer["channels"]) == (400, ["c", "d"])


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_error_of_the_whole_request_has_no_channels(transport: str, tmp_path: Path) -> None:
    async with running_node(client=guarded(tmp_path)) as node:
        if transport == "websocket":
            async with connect(node.url()) as browser:
                answer = await command(browser, "subscribe", ["a"])
                status = answer["status"]
        else:
            refused = await curl(f"http://localhost:{node.client_port}/{transport}?channel=a")
            status, answer = refused.status, refused.json
        assert status == 401
        assert "channels" not in answer


async def test_responses_contain_the_validity_of_the_token(tmp_path: Path) -> None:
    show = ("-H", "Authorization: Bearer " + token("a"))
    async with running_node(client=guarded(tmp_path)) as node:
        url = f"http://localhost:{node.client_port}/"
        answer = await curl(f"{url}poll?channel=a&wait=0", *show)
        assert 3590 < int(answer.headers["aphlict-token-expires"]) <= 3600 + LEEWAY
        assert answer.headers["access-control-expose-headers"] == "Aphlict-Token-Expires"
        refused = await curl(f"{url}poll?channel=secret", *show)
        assert refused.status == 403
        assert 3590 < int(refused.headers["aphlict-token-expires"]) <= 3600 + LEEWAY
        async with event_source(f"{url}events?channel=a", *show) as source:
            assert b"\r\nAphlict-Token-Expires: 3" in source.head
    async with running_node() as node:
        answer = await curl(f"http://localhost:{node.client_port}/poll?channel=a&wait=0", *show)
        assert "aphlict-token-expires" not in answer.headers
