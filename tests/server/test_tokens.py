"""Tokens on WebSockets, as an independent client presents them."""

import asyncio
import json
import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from aphlict.server.auth import CHECK_INTERVAL, GrantTimer
from aphlict.server.client_port import WebSocketSession
from aphlict.server.websocket_connection import WebSocket
from tests.support.clocks import Clock
from tests.support.curl import curl
from tests.support.heads import BROWSER
from tests.support.memory import kept
from tests.support.nodes import RunningNode, command, receive, running_node
from tests.support.tokens import ALGORITHMS, LEEWAY, handmade, key_file, pair, token
from tests.support.waiting import eventually

OURS = ("aphlict", "tornado", "asyncio")
INVALID = 'Bearer realm="aphlict", error="invalid_token"'
MUCH = 400  # messages of 60 KB
UPGRADE = [
    option
    for name, value in BROWSER.items()
    for option in ("-H", f"{name}: {value}")
    if name not in ("Host", "Origin")
]


def guarded(folder: Path, *contents: bytes, **keys: Any) -> dict[str, Any]:
    """Return the settings of a client port that requires tokens."""
    files = [key_file(folder, content, f"{place}.key") for place, content in enumerate(contents)]
    return {"auth.keys": files or [key_file(folder)], **keys}


def ends_in(seconds: float) -> float:
    """Return the `exp` of a token that the server accepts for so long."""
    return time.time() - LEEWAY + seconds


async def publish_much(node: RunningNode) -> None:
    """Publish more than sockets hold."""
    for number in range(MUCH):
        await node.publish({"subscribers": ["a"], "uniqueID": str(number), "text": "x" * 60_000})


async def closed_with(browser: ClientConnection) -> tuple[int, str]:
    """Return code and reason with which the server closes a connection."""
    await asyncio.wait_for(browser.wait_closed(), 10)
    assert browser.close_code is not None
    return browser.close_code, browser.close_reason or ""


async def refused(url: str, **options: Any) -> tuple[int, str]:
    """Return status and challenge of the response to a rejected upgrade."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(url, **options)
    answer = caught.value.response
    return answer.status_code, answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("way", ["query", "header", "sub-protocol", "command"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_every_way_to_present_every_kind_of_token(algorithm: str, way: str, tmp_path: Path) -> None:
    text = token("a", "b-*", by=pair(algorithm))
    async with running_node(client=guarded(tmp_path, pair(algorithm).public)) as node:
        url, options = node.url(), dict[str, Any]()
        if way == "query":
            url += f"?x=1&token={text}"
        elif way == "header":
            options = {"additional_headers": {"Authorization": f"Bearer {text}"}}
        elif way == "sub-protocol":
            options = {"subprotocols": [Subprotocol("aphlict"), Subprotocol(f"token.{text}")]}
        async with connect(url, **options) as browser:
            assert browser.subprotocol == ("aphlict" if way == "sub-protocol" else None)
            if way == "command":
                answer = await command(browser, "auth", text)
                assert 3590 < answer["expires"] <= 3600 + LEEWAY
            assert (await command(browser, "subscribe", ["a", "b-1"]))["type"] == "ack"
            await node.publish({"subscribers": ["a", "secret"], "uniqueID": "m1"})
            assert await receive(browser, 1) == [{"uniqueID": "m1", "subscribers": ["a"]}]
            answer = await command(browser, "subscribe", ["b-2", "secret"])
            assert (answer["code"], answer["channels"]) == ("channel_forbidden", ["secret"])
            await node.publish({"subscribers": ["b-2", "b-1"], "uniqueID": "m2"})
            assert (await receive(browser, 1))[0]["subscribers"] == ["b-1"]


async def test_an_invalid_token_is_rejected_before_the_upgrade(tmp_path: Path) -> None:
    strange = token("a", by=pair("HS256", 1))
    async with running_node(client=guarded(tmp_path)) as node:
        for url, options in (
            (node.url(f"/ws/?token={strange}"), {}),
            (node.url(), {"additional_headers": {"Authorization": f"bearer {strange}"}}),
            (node.url(), {"subprotocols": ["aphlict", f"token.{strange}"]}),
        ):
            assert await refused(url, **options) == (401, INVALID)
        assert await refused(node.url(f"/ws/?token={token('a', exp=ends_in(-1))}")) == (401, INVALID)
        answer = await curl(f"http://localhost:{node.client_port}/?token={strange}", *UPGRADE)
        assert answer.json["code"] == "token_invalid"
        assert (await node.status())["connections"] == 0


async def test_rejected_tokens_are_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strange = token("a", by=pair("HS256", 1))
    async with running_node(client=guarded(tmp_path)) as node, connect(node.url()) as browser:
        await command(browser, "auth", strange)
        await refused(node.url(f"/ws/?token={strange}"))
        await command(browser, "auth", token("a"))
        assert (await node.status())["refused"]["auth.keys"] == 2
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == [
        "auth.keys refused 127.0.0.1 (the token is not signed by a key of this server)"
    ]


async def test_a_token_is_for_one_instance(tmp_path: Path) -> None:
    async with running_node(client=guarded(tmp_path)) as node:
        status, challenge = await refused(node.url(f"/ws/~acme/?token={token('*')}"))
        assert status == 403
        assert 'error="insufficient_scope"' in challenge
        async with connect(node.url("/ws/~acme/")) as browser:
            assert "error" in await command(browser, "auth", token("*"))
            assert "error" in await command(browser, "auth", token("*", instance="other"))
            assert "error" not in await command(browser, "auth", token("*", instance="acme"))
            assert "error" not in await command(browser, "subscribe", ["a"])


async def test_without_a_token_only_ping_is_allowed(tmp_path: Path) -> None:
    async with running_node(client=guarded(tmp_path)) as node, connect(node.url()) as browser:
        for name, data in (("subscribe", ["a"]), ("replay", {"age": 60000})):
            answer = await command(browser, name, data)
            assert answer["code"] == "token_missing"
        await browser.send('{"command": "ping"}')
        assert json.loads(await browser.recv()) == {"type": "pong"}
        assert "error" not in await command(browser, "unsubscribe", ["a"])
        assert (await node.publish({"subscribers": ["a"]}))["matched"] == 0
        for bad in ("", "a.b.c", token("a", by=pair("HS256", 1)), 7, None, handmade({"alg": "none"}, {})):
            assert "error" in await command(browser, "auth", bad)
        assert "error" not in await command(browser, "auth", token("a"))
        assert "error" not in await command(browser, "subscribe", ["a"])


async def test_a_connection_without_a_token_in_time_is_closed(tmp_path: Path, clock: Clock) -> None:
    async with running_node(client=guarded(tmp_path), limits__handshake=10) as node:
        silent, bad, good = [await connect(node.url()) for _ in range(3)]
        async with silent, bad, good:
            await command(good, "auth", token("a"))
            await command(bad, "auth", "x.y.z")
            clock.advance(node, 9)
            await command(silent, "unsubscribe", [])
            clock.advance(node, 2)
            assert await closed_with(silent) == (4001, "no token was received in time")
            assert await closed_with(bad) == (4001, "no token was received in time")
            assert "error" not in await command(good, "subscribe", ["a"])


async def test_the_connection_closes_when_the_token_expires(tmp_path: Path, clock: Clock) -> None:
    async with running_node(client=guarded(tmp_path)) as node:
        async with connect(node.url(f"/ws/?token={token('a', exp=ends_in(20))}")) as browser:
            clock.advance(node, 10)
            assert "error" not in await command(browser, "subscribe", ["a"])
            clock.advance(node, 20)
            assert await closed_with(browser) == (4001, "the token has expired")
        await eventually(lambda: node.node.hub.connections == 0)


@pytest.mark.parametrize("end", ["token", "key"])
async def test_a_replay_ends_when_the_token_expires(end: str, tmp_path: Path, clock: Clock) -> None:
    async with running_node(client=guarded(tmp_path)) as node:
        await publish_much(node)
        async with connect(node.url(), max_queue=1) as browser:
            await command(browser, "auth", token("a", exp=ends_in(20 if end == "token" else 1000)))
            await command(browser, "subscribe", ["a"])
            await browser.send(json.dumps({"command": "replay", "data": {"age": 60000}}))
            await browser.recv()
            if end == "key":
                reload_keys(node, key_file(tmp_path, pair("HS256", 1).public, "other.key"))
            clock.advance(node, CHECK_INTERVAL + 1)
            assert (await node.status())["connections"] == 0
            came = 1
            with suppress(ConnectionClosed):
                while await browser.recv():
                    came += 1
            assert browser.close_code == 4001
            assert came < MUCH / 2, "no more than was in the sockets"


async def test_a_connection_continues_with_another_token(tmp_path: Path, clock: Clock) -> None:
    async with running_node(client=guarded(tmp_path)) as node, connect(node.url()) as browser:
        first = await command(browser, "auth", token("a", exp=ends_in(20)))
        assert 10 < first["expires"] < 30
        await command(browser, "subscribe", ["a"])
        await command(browser, "auth", token("a", exp=ends_in(40)))
        bad = await command(browser, "auth", token("a", by=pair("HS256", 1)))
        assert bad["code"] == "token_invalid"
        clock.advance(node, 30)  # the first has expired
        await node.publish({"subscribers": ["a"], "uniqueID": "later"})
        assert (await receive(browser, 1))[0]["uniqueID"] == "later"
        clock.advance(node, 20)
        assert await closed_with(browser) == (4001, "the token has expired")


async def test_a_token_that_expires_earlier_replaces_the_first(tmp_path: Path, clock: Clock) -> None:
    async with running_node(client=guarded(tmp_path)) as node, connect(node.url()) as browser:
        await command(browser, "auth", token("a"))
        clock.advance(node, 15)  # the time to present a token is over: the next check is CHECK_INTERVAL later
        await command(browser, "auth", token("a", exp=ends_in(20)))
        clock.advance(node, CHECK_INTERVAL - 5)
        assert await closed_with(browser) == (4001, "the token has expired")


async def test_a_narrower_token_ends_subscriptions(tmp_path: Path) -> None:
    async with running_node(client=guarded(tmp_path)) as node, connect(node.url()) as browser:
        await command(browser, "auth", token("*"))
        await command(browser, "subscribe", ["a", "b", "c-1"])
        answer = await command(browser, "auth", token("a", "c-*"))
        assert answer["unsubscribed"] == ["b"]
        await node.publish(
            {"subscribers": ["b"], "uniqueID": "1"}, {"subscribers": ["b", "a"], "uniqueID": "2"}
        )
        assert await receive(browser, 1) == [{"uniqueID": "2", "subscribers": ["a"]}]
        assert "unsubscribed" not in await command(browser, "auth", token("*"))


async def test_a_port_without_keys_accepts_any_token(tmp_path: Path) -> None:
    """So pages may present tokens before the operator requires them."""
    async with running_node() as node:
        url = node.url("/ws/?token=nonsense")
        headers = {"Authorization": "Bearer nonsense"}
        async with connect(
            url, additional_headers=headers, subprotocols=[Subprotocol("aphlict"), Subprotocol("token.x")]
        ) as browser:
            assert browser.subprotocol == "aphlict"
            answer = await command(browser, "auth", "nonsense")
            assert answer["type"] == "ack"
            assert "expires" not in answer
            assert "error" not in await command(browser, "subscribe", ["a"])
        assert (
            await curl(f"http://localhost:{node.client_port}/poll?channel=a&wait=0&token=x")
        ).status == 200


async def test_other_subprotocols_are_not_selected(tmp_path: Path) -> None:
    async with running_node(client=guarded(tmp_path)) as node:
        async with connect(node.url(), subprotocols=[Subprotocol("chat"), Subprotocol("aphlict")]) as browser:
            assert browser.subprotocol == "aphlict"
        async with connect(node.url(), subprotocols=[Subprotocol("chat")]) as browser:
            assert browser.subprotocol is None


async def test_a_token_is_at_most_as_long_as_a_head(tmp_path: Path) -> None:
    long = token(*(f"channel-{number}" for number in range(1000)))
    async with running_node(client=guarded(tmp_path)) as node, connect(node.url()) as browser:
        assert (await command(browser, "auth", long))["code"] == "token_invalid"
    async with (
        running_node(client=guarded(tmp_path), limits__request_head=32768) as node,
        connect(node.url()) as browser,
    ):
        assert "error" not in await command(browser, "auth", long)


async def test_verifying_tokens_is_charged_as_commands(tmp_path: Path, clock: Clock) -> None:
    """Expensive tokens pause reading from their client, and from no other."""
    contents = [pair("ES256", number).public for number in range(2)]
    text = token("a", by=pair("ES256", 2))
    async with (
        running_node(
            client=guarded(tmp_path, *contents), limits__commands=10, limits__commands__burst=20
        ) as node,
        connect(node.url()) as browser,
    ):
        for number in range(4):
            await browser.send(json.dumps({"command": "auth", "data": text, "id": number}))
        for _ in range(3):
            await browser.recv()
        await eventually(lambda: node.node.hub.limit_counters.counts.get("limits.commands"), "a pause")
        clock.advance(node, 10)
        await browser.recv()


async def test_no_resume_token_before_a_token(tmp_path: Path) -> None:
    async with running_node(client=guarded(tmp_path)) as node, connect(node.url()) as browser:
        await node.publish({"subscribers": ["a"]}, instance="other")
        for name, data in (("ping", None), ("unsubscribe", ["a"])):
            await browser.send(json.dumps({"command": name, "data": data, "id": name}))
            answers = [json.loads(await browser.recv()) for _ in range(1 + (name == "ping"))]
            assert answers[-1] == {"type": "ack", "id": name}
        assert "last" in await command(browser, "auth", token("a"))


def reload_keys(node: RunningNode, *files: str) -> None:
    """Reload with other key files."""
    settings = node.node.settings
    client, admin = settings.servers
    node.node.prepare_reload(
        structs.replace(settings, servers=(structs.replace(client, auth_keys=files), admin))
    )()


async def test_a_reload_rotates_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aphlict.server.auth.CHECK_INTERVAL", 0.2)
    old, new = (key_file(tmp_path, pair("ES256", each).public, f"{each}.key") for each in (0, 1))
    tokens = [token("a", by=pair("ES256", each)) for each in (0, 1)]
    async with running_node(client={"auth.keys": [old]}) as node:
        before = await connect(node.url(f"/ws/?token={tokens[0]}"))
        await command(before, "subscribe", ["a"])
        assert (await refused(node.url(f"/ws/?token={tokens[1]}")))[0] == 401
        reload_keys(node, old, new)
        after = await connect(node.url(f"/ws/?token={tokens[1]}"))
        await connect(node.url(f"/ws/?token={tokens[0]}"))
        reload_keys(node, new)
        assert await closed_with(before) == (4001, "the key of the token has been removed")
        assert "error" not in await command(after, "subscribe", ["a"])
        assert (await refused(node.url(f"/ws/?token={tokens[0]}")))[0] == 401
        await after.close()


async def test_closed_connections_are_not_kept_until_their_token_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aphlict.server.auth.CHECK_INTERVAL", 0.2)
    async with running_node(client=guarded(tmp_path)) as node:
        timers = node.node.server.context.timers
        for _ in range(10):
            async with connect(node.url(f"/ws/?token={token('a', exp=ends_in(86400))}")) as browser:
                for _ in range(5):
                    await command(browser, "auth", token("a"))

        await eventually(lambda: not kept(timers, GrantTimer), "the deadlines to be forgotten")


async def test_a_reload_adds_and_removes_the_requirement(tmp_path: Path, clock: Clock) -> None:
    async with running_node() as node:
        early = await connect(node.url())
        reload_keys(node, key_file(tmp_path))
        late = await connect(node.url())
        short = await connect(node.url(f"/ws/?token={token('a', exp=ends_in(20))}"))
        assert "error" not in await command(early, "subscribe", ["a"])
        assert "error" in await command(late, "subscribe", ["a"])
        reload_keys(node)
        assert "error" not in await command(late, "subscribe", ["a"])
        await node.publish({"subscribers": ["a"], "uniqueID": "1"})
        for browser in (early, late):
            assert (await receive(browser, 1))[0]["uniqueID"] == "1"
        clock.advance(node, 30)  # its token has expired, and none is required
        for browser in (early, late, short):
            assert "error" not in await command(browser, "subscribe", ["b"])
            await browser.close()


async def test_no_token_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    good, bad = token("a"), token("a", by=pair("HS256", 1))
    async with running_node(client=guarded(tmp_path)) as node:
        site = f"http://localhost:{node.client_port}/ws/"
        for text in (good, bad):
            header, protocols = {"Authorization": f"Bearer {text}"}, ["aphlict", f"token.{text}"]
            for path, options in (
                (f"/ws/?token={text}", {}),
                ("/ws/", {"additional_headers": header}),
                ("/ws/", {"subprotocols": protocols}),
            ):
                with suppress(InvalidStatus):
                    async with connect(node.url(path), **options) as browser:
                        await command(browser, "subscribe", ["a", "b"])
            async with connect(node.url()) as browser:
                await command(browser, "auth", text)
                await command(browser, "auth", {"token": text})
                await command(browser, "nonsense", text)
                await browser.send(f'{{"command": "auth", "data": "{text}"')
                await browser.send(f'{{"command": "auth", "data": "{text}", "id": ["{text}"]}}')
                await command(browser, "unsubscribe", ["a"])
            for path in ("poll?wait=0&", "events?", "poll?wait=x&", "status?", "nothing?", "aphlict.js?"):
                for method in ("GET", "POST", "BREW"):
                    url = f"{site}{path}token={text}"
                    await curl(url, "-X", method, "-G", "-d", "channel=b")
    logged = "\n".join(each.getMessage() for each in caplog.records if each.name.startswith(OURS))
    assert "may subscribe to" in logged
    for text in (good, bad):
        for part in (text, *text.split(".")[1:]):
            assert part[:30] not in logged


async def test_a_connection_of_a_port_without_keys_has_no_timer() -> None:
    async with running_node() as node, connect(node.url()) as browser:
        await command(browser, "subscribe", ["a"])
        [connection] = node.node.server.connections()
        assert isinstance(connection, WebSocket)
        assert isinstance(connection.session, WebSocketSession)
        assert connection.session.grant_timer is None
