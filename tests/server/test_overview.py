"""GET /overview: what it reports of a node, and what it costs."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from aphlict import __version__
from aphlict.core.overview import MAX_CANDIDATES, MAX_ROWS
from aphlict.server import overview_maker
from tests.support import tokens
from tests.support.certificates import self_signed
from tests.support.curl import curl
from tests.support.nodes import RunningNode, listening, receive, running_node, subscribed
from tests.support.waiting import eventually, eventually_async
from tests.trace.staging import SlowClient

KEYS = {
    *(
        "time",
        "version",
        "fingerprint",
        "state",
        "uptime",
        "processes",
        "processes_expected",
        "peers",
        "figures",
    ),
    *(
        "series",
        "slow_clients",
        "closed",
        "limits",
        "refused",
        "instances",
        "channels",
        "certificates",
        "events",
    ),
}


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request gets a new overview."""
    monkeypatch.setattr(overview_maker, "MIN_INTERVAL", 0.0)


async def overview(node: RunningNode) -> dict[str, Any]:
    status, found = await node.ask("/overview")
    assert status == 200
    assert isinstance(found, dict)
    return found


@pytest.mark.usefixtures("fresh")
async def test_the_figures_of_a_node() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a", "b")
        other = await subscribed(node.url("/~acme/"), "a")
        for _ in range(2):
            await node.publish({"subscribers": ["a", "nobody"], "uniqueID": "u"})
        await receive(browser, 1)
        await node.ask("/", method="POST", body=json.dumps({"subscribers": ["x" * 300]}))
        await curl(f"http://127.0.0.1:{node.admin_port}/", "-H", "Origin: null")
        found, status = await overview(node), await node.status()
        assert set(found) == KEYS
        assert (found["version"], found["state"]) == (__version__, "RUNNING")
        assert found["fingerprint"] == status["fingerprint"]
        assert abs(found["time"] - time.time()) < 60
        assert 0 < found["uptime"] < 60
        [process] = found["processes"]
        assert (process["name"], process["pid"], process["connections"]) == ("worker", status["pid"], 2)
        assert process["memory"] > 1e6
        assert found["processes_expected"] == 1
        figures = found["figures"]
        assert figures["connections"] == {"websocket": 2, "sse": 0, "poll": 0}
        assert figures["connections_limit"] == status["connections.max"]
        expected = {
            "subscriptions": 3,
            "messages": 2,
            "deliveries": 1,
            "duplicates": 1,
            "history_messages": 1,
        }
        expected |= {"lost": 0, "gap": 0, "recovered": 0, "waiting_clients": 0}
        assert {name: figures[name] for name in expected} == expected
        assert figures["publisher_connections"] >= 1
        assert 0 < figures["descriptors_used_ratio"] < 1
        assert (found["limits"], found["refused"]) == ({"limits.name": 1}, {"admin.pages": 1})
        assert found["instances"] == [
            {"instance": "acme", "connections": 1, "channels": 1, "messages": 0},
            {"instance": "default", "connections": 1, "channels": 2, "messages": 1},
        ]
        assert found["channels"] == [
            {"instance": instance, "channel": channel, "subscribers": 1}
            for instance, channel in (("acme", "a"), ("default", "a"), ("default", "b"))
        ]
        await browser.close()
        await other.close()
        await eventually(lambda: not node.node.hub.connections)
        assert (await overview(node))["closed"]["client"] == 2


@pytest.mark.usefixtures("fresh")
async def test_channels_with_most_subscribers() -> None:
    async with running_node() as node:
        browsers = [await subscribed(node.url(), "all", f"own {number}") for number in range(3)]
        await browsers[0].send(json.dumps({"command": "subscribe", "data": [f"x {n}" for n in range(200)]}))
        await eventually(lambda: node.node.hub.subscription_memory.count == 206)
        found = (await overview(node))["channels"]
        assert len(found) == MAX_ROWS
        assert (found[0]["channel"], found[0]["subscribers"]) == ("all", 3)
        assert {each["subscribers"] for each in found[1:]} == {1}
        for browser in browsers:
            await browser.close()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("target", "transport"), [("/ws/", "websocket"), ("/events", "sse")])
async def test_slow_clients(target: str, transport: str) -> None:
    async with running_node() as node:
        fast = await subscribed(node.url(), "b")
        slow = await SlowClient(node, target).subscribe("a")
        await slow.fill("a")
        found = await overview(node)
        [client] = found["slow_clients"]
        assert client["waiting_bytes"] > 0
        assert found["figures"]["waiting_clients"] == 1
        expected = {"process": "worker", "address": "127.0.0.1", "transport": transport, "subject": None}
        assert {name: client[name] for name in expected} == expected
        assert client["instance"] == "default"
        traced = await node.ask("/trace?channel=a&connections=1")
        [connection] = traced[1]["nodes"][0]["connections"]
        assert connection["number"] == client["connection"], "by which the log and traces name it"
        slow.close()
        await fast.close()


@pytest.mark.usefixtures("fresh")
async def test_a_slow_client_with_a_token(tmp_path: Path) -> None:
    keys = {"auth.keys": [tokens.key_file(tmp_path)]}
    async with running_node(client=keys) as node:
        slow = SlowClient(node, f"/events?token={tokens.token('*', sub='alice')}")
        await slow.subscribe("a")
        await slow.fill("a")
        assert [each["subject"] for each in (await overview(node))["slow_clients"]] == ["alice"]
        slow.close()


@pytest.mark.usefixtures("fresh")
async def test_peers_and_certificates(tmp_path: Path) -> None:
    with listening() as nobody:
        gone = nobody.getsockname()[1]
    files = self_signed().write(tmp_path).settings()
    async with running_node(client=files, cluster=[{"host": "127.0.0.1", "port": gone}]) as node:
        found = await overview(node)
        assert found["peers"] == (await node.status())["peers"]
        [certificate] = found["certificates"]
        assert certificate["port"] == str(node.client_port)
        assert certificate["expires"] > time.time()


@pytest.mark.usefixtures("fresh")
async def test_the_last_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aphlict.node.SAMPLE_INTERVAL", 0.1)
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        await node.publish({"subscribers": ["a"]})

        async def is_drawn() -> bool:
            series = (await overview(node))["series"]
            assert len({len(points) for points in series.values() if isinstance(points, list)}) == 1
            return sum(series["messages"]) > 0 and any(series["delivery_time"])

        await eventually_async(is_drawn)
        series = (await overview(node))["series"]
        assert abs(series["time"] - time.time()) < 60
        assert series["connections"][-1] == 1
        assert any(series["publish_time"])
        await browser.close()


async def test_many_consoles_share_an_overview(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview_maker, "MIN_INTERVAL", 3600.0)
    async with running_node() as node:
        found = await asyncio.gather(*(overview(node) for _ in range(20)))
        assert {each["time"] for each in found} == {found[0]["time"]}
        monkeypatch.setattr(overview_maker, "MIN_INTERVAL", 0.0)
        assert (await overview(node))["time"] > found[0]["time"]


async def test_an_internal_error(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async with running_node() as node:
        monkeypatch.setattr(node.node, "facts", None)
        status, found = await node.ask("/overview")
        assert (status, found["code"]) == (500, "internal_error")
        assert "internal error on GET /overview" in caplog.text


async def test_a_survey_takes_several_turns_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_node() as node:
        browsers = [await subscribed(node.url(), *(f"{n}" for n in range(500))) for _ in range(2)]
        turns, is_over = 0, False

        async def count() -> None:
            nonlocal turns
            while not is_over:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        monkeypatch.setattr("aphlict.server.tracer.MAX_SLICE", 0.0)
        assert len((await node.node.survey())[0].channels) == MAX_CANDIDATES
        is_over = True
        await counting
        assert turns >= 10
        for browser in browsers:
            await browser.close()
