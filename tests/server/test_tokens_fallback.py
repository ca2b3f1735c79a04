"""Tokens on event streams and polls, as curl presents them."""

import asyncio
from pathlib import Path

import pytest

from tests.server.test_tokens import MUCH, ends_in, guarded, publish_much, reload_keys
from tests.support.clocks import Clock
from tests.support.curl import curl, event_source
from tests.support.nodes import RunningNode, running_node
from tests.support.tokens import ALGORITHMS, key_file, pair, token
from tests.support.waiting import eventually


def at(node: RunningNode, path: str) -> str:
    return f"http://localhost:{node.client_port}/ws/{path}"


def bearer(text: str) -> tuple[str, str]:
    return "-H", f"Authorization: Bearer {text}"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_events_and_polls_with_a_token(algorithm: str, tmp_path: Path) -> None:
    text = token("a", "b-*", by=pair(algorithm))
    async with running_node(client=guarded(tmp_path, pair(algorithm).public)) as node:
        async with (
            event_source(at(node, "events?channel=a"), *bearer(text)) as stream,
            event_source(at(node, f"events?channel=b-1&token={text}")) as other,
        ):
            await node.publish({"subscribers": ["a", "b-1", "c"], "uniqueID": "m1"})
            assert (await stream.event()).json["subscribers"] == ["a"]
            assert (await other.event()).json["subscribers"] == ["b-1"]
        answer = await curl(at(node, "poll?channel=a&channel=b-2&wait=0"), *bearer(text))
        assert answer.status == 200
        assert answer.json["messages"] == []


@pytest.mark.parametrize("endpoint", ["events", "poll"])
async def test_rejected_requests(endpoint: str, tmp_path: Path) -> None:
    invalid = 'Bearer realm="aphlict", error="invalid_token"'
    async with running_node(client=guarded(tmp_path)) as node:
        for options, status, code, challenge in (
            ((), 401, "token_missing", 'Bearer realm="aphlict"'),
            (("-u", "me:secret"), 401, "token_missing", 'Bearer realm="aphlict"'),
            (bearer(token("a", by=pair("HS256", 1))), 401, "token_invalid", invalid),
            (bearer(token("a", exp=ends_in(-1))), 401, "token_expired", invalid),
            (bearer("x"), 401, "token_invalid", invalid),
            (bearer(token("b")), 403, "channel_forbidden", "insufficient_scope"),
            (bearer(token("a", instance="acme")), 403, "instance_forbidden", "insufficient_scope"),
        ):
            answer = await curl(at(node, f"{endpoint}?channel=a"), *options)
            assert (answer.status, answer.json["code"]) == (status, code)
            assert challenge in answer.headers["www-authenticate"]
            assert answer.headers["access-control-allow-origin"] == "*"
        assert (await node.status())["clients.total"] == 0


async def test_preflight_allows_the_token_field(tmp_path: Path) -> None:
    async with running_node(client=guarded(tmp_path)) as node:
        answer = await curl(at(node, "events?channel=a"), "-X", "OPTIONS")
        assert answer.status == 204
        assert "Authorization" in answer.headers["access-control-allow-headers"].split(", ")


async def test_public_paths_require_no_token(tmp_path: Path) -> None:
    async with running_node(client=guarded(tmp_path)) as node:
        assert (await curl(at(node, "status"))).status == 200
        assert (await curl(at(node, "aphlict.js"))).status == 200
        assert (await curl(at(node, ""))).status == 501


async def test_an_event_stream_ends_when_the_token_expires(tmp_path: Path, clock: Clock) -> None:
    async with running_node(client=guarded(tmp_path)) as node:
        short = token("a", exp=ends_in(20))
        asking = asyncio.create_task(curl(at(node, "events?channel=a"), "-N", *bearer(short)))
        await eventually(lambda: node.node.hub.connections == 1)
        clock.advance(node, 10)
        assert (await node.publish({"subscribers": ["a"], "uniqueID": "m1"}))["matched"] == 1
        clock.advance(node, 20)
        answer = await asking
        assert answer.status == 200
        assert answer.body.startswith(b": aphlict\n")
        await eventually(lambda: node.node.hub.connections == 0)


async def test_a_replay_to_a_stream_ends_when_the_token_expires(tmp_path: Path, clock: Clock) -> None:
    async with running_node(client=guarded(tmp_path)) as node:
        await publish_much(node)
        query = f"/events?channel=a&after=gone&token={token('a', exp=ends_in(20))}"
        reader, writer = await asyncio.open_connection("127.0.0.1", node.client_port, limit=1024)
        writer.write(f"GET {query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await reader.readuntil(b"event: gap\n")
        clock.advance(node, 30)
        assert (await node.status())["connections"] == 0
        size = 0
        while data := await reader.read(65536):
            size += len(data)
        assert size < MUCH * 60_000 / 2, "no more than was in the sockets"
        writer.close()


async def test_a_poll_ends_when_the_token_expires(tmp_path: Path, clock: Clock) -> None:
    async with running_node(client=guarded(tmp_path)) as node:
        short = token("a", exp=ends_in(20))
        asking = asyncio.create_task(curl(at(node, "poll?channel=a&wait=60"), *bearer(short)))
        await eventually(lambda: node.node.hub.connections == 1)
        clock.advance(node, 10)
        assert node.node.hub.connections == 1
        clock.advance(node, 20)
        answer = await asking
        assert answer.status == 200
        assert answer.json["recovered"] is True
        last = answer.json["last"]
        await node.publish({"subscribers": ["a"], "uniqueID": "m1"})
        answer = await curl(at(node, f"poll?channel=a&after={last}"), *bearer(token("a")))
        assert [each["uniqueID"] for each in answer.json["messages"]] == ["m1"]


async def test_a_stream_ends_when_its_key_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aphlict.server.auth.CHECK_INTERVAL", 0.2)
    async with running_node(client=guarded(tmp_path)) as node:
        asking = asyncio.create_task(curl(at(node, "events?channel=a"), "-N", *bearer(token("a"))))
        await eventually(lambda: node.node.hub.connections == 1)
        reload_keys(node, key_file(tmp_path, pair("HS256", 1).public, "other.key"))
        assert (await asking).status == 200
