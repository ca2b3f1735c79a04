"""The client port, as independent WebSocket clients see it."""

import json
import logging
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.support.nodes import command, receive, running_node, subscribed


@pytest.mark.parametrize("path", ["/", "/ws/", "/ws/~acme/", "/any/thing"])
async def test_a_request_without_upgrade_gets_501(path: str) -> None:
    async with running_node() as node:
        for more in ({}, {"method": "POST", "body": b"{}"}):
            status, answer = await node.ask(path, port=node.client_port, **more)
            assert status == 501
            assert "error" in answer
        assert not any((await node.status())["limits"].values())


@pytest.mark.parametrize(
    ("path", "instance"),
    [
        ("/", "default"),
        ("/anything/at/all?x=~y", "default"),
        ("/~acme", "acme"),
        ("/ws/~acme/", "acme"),
        ("/~acme/x~rest", "acmex"),
        ("/~/", "default"),
        ("/ws/~a%20b/", "a b"),
    ],
)
async def test_any_path_upgrades_and_may_contain_the_instance(path: str, instance: str) -> None:
    async with running_node() as node, connect(node.url(path)) as browser:
        await command(browser, "subscribe", ["a"])
        await node.publish({"subscribers": ["a"], "text": "x"}, instance=instance.replace(" ", "%20"))
        assert (await receive(browser, 1))[0]["text"] == "x"


async def test_messages_of_one_instance_never_reach_another() -> None:
    async with running_node() as node:
        acme = await subscribed(node.url("/~acme/"), "a")
        other = await subscribed(node.url("/~other/"), "a")
        await node.publish({"subscribers": ["a"], "text": "for acme"}, instance="acme")
        await node.publish({"subscribers": ["a"], "text": "for other"}, instance="other")
        assert [m["text"] for m in await receive(acme, 1)] == ["for acme"]
        assert [m["text"] for m in await receive(other, 1)] == ["for other"]
        answer = await replay(other, {"age": 60000})
        assert [m["text"] for m in answer[:-1]] == ["for other"]


async def replay(browser: ClientConnection, data: object) -> list[dict[str, Any]]:
    """Request a replay. Return the messages, and the ack last."""
    await browser.send(json.dumps({"command": "replay", "data": data, "id": 1}))
    received: list[dict[str, Any]] = []
    while not received or received[-1].get("type") != "ack":
        received.append(json.loads(await browser.recv()))
    return received


async def test_unsubscribed_channels_deliver_nothing() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a", "b")
        await command(browser, "unsubscribe", ["a", "never"])
        await node.publish({"subscribers": ["a"], "text": "1"})
        await node.publish({"subscribers": ["b"], "text": "2"})
        assert [m["text"] for m in await receive(browser, 1)] == ["2"]


async def test_subscribing_twice_delivers_once() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        await command(browser, "subscribe", ["a", "a", "b"])
        receipt = await node.publish({"subscribers": ["a", "b", "a"], "text": "1"})
        await node.publish({"subscribers": ["a"], "text": "2"})
        assert receipt["matched"] == 1
        assert [m["text"] for m in await receive(browser, 2)] == ["1", "2"]


async def test_ping_is_answered_with_pong_and_nothing_else() -> None:
    async with running_node() as node, connect(node.url()) as browser:
        await browser.send('{"command": "ping", "data": null}')
        await browser.send('{"command": "ping"}')
        assert await receive(browser, 2) == [{"type": "pong"}, {"type": "pong"}]


async def test_a_replay_by_age_sends_subscribed_messages_oldest_first() -> None:
    async with running_node() as node:
        for number in range(5):
            await node.publish({"subscribers": ["a" if number % 2 else "b"], "n": number})
        browser = await subscribed(node.url(), "a", "b")
        assert [m.get("n") for m in await replay(browser, {"age": 60000})] == [0, 1, 2, 3, 4, None]
        await command(browser, "unsubscribe", ["b"])
        assert [m.get("n") for m in await replay(browser, None)] == [1, 3, None]


async def test_a_replay_by_age_omits_older_messages() -> None:
    async with running_node() as node:
        await node.publish({"subscribers": ["a"], "n": 1})
        [entry] = node.node.hub.instance("default").history.entries
        entry.at -= 30  # seconds ago
        await node.publish({"subscribers": ["a"], "n": 2})
        browser = await subscribed(node.url(), "a")
        assert [m.get("n") for m in await replay(browser, {"age": 20_000})] == [2, None]
        assert [m.get("n") for m in await replay(browser, {"age": 45_000})] == [1, 2, None]


async def test_history_holds_4096_messages() -> None:
    async with running_node() as node:
        for start in range(0, 5000, 500):
            await node.publish(*({"subscribers": ["a"], "n": start + n} for n in range(500)))
        assert (await node.status())["history.size"] == 4096
        browser = await subscribed(node.url(), "a")
        received = await replay(browser, {"age": 60000})
        assert [m["n"] for m in received[:-1]] == list(range(5000 - 4096, 5000))
        assert received[-1]["count"] == 4096


BAD_COMMANDS = [
    "no json",
    "[]",
    "7",
    '{"data": []}',
    '{"command": "fly"}',
    '{"command": 7}',
    '{"command": "subscribe"}',
    '{"command": "subscribe", "data": "a"}',
    '{"command": "subscribe", "data": [1.5]}',
    '{"command": "subscribe", "data": ["' + "x" * 257 + '"]}',
    '{"command": "replay", "data": {"age": "old"}}',
    '{"command": "replay", "data": 7}',
    "[" * 30_000,
    '{"command": "\\ud800"}',
    b"binary",
]


@pytest.mark.parametrize("bad", BAD_COMMANDS, ids=lambda bad: repr(bad[:40]))
async def test_an_invalid_command_is_logged_and_changes_nothing(
    bad: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with running_node() as node:
            browser = await subscribed(node.url(), "a")
            await browser.send(bad)
            await node.publish({"subscribers": ["a"], "text": "x"})
            assert [m["text"] for m in await receive(browser, 1)] == ["x"]
            assert "rejected a command from" in caplog.text


async def test_a_client_does_not_see_other_channels_of_a_message() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "b", "c")
        await node.publish(
            {"subscribers": ["a", "b", "secret"], "touched": ["AAAABBBBCCCCDDDD"], "text": "x"}
        )
        [message] = await receive(browser, 1)
        assert message["subscribers"] == ["b"]
        assert "touched" not in message


async def test_clients_with_different_channels_receive_their_own() -> None:
    async with running_node() as node:
        wanted = [("a",), ("b",), ("a", "b"), ("b", "c"), ("c",)]
        browsers = [await subscribed(node.url(), *channels) for channels in wanted]
        receipt = await node.publish({"subscribers": ["a", "b", "d"]})
        assert receipt["matched"] == 4
        for browser, channels in zip(browsers[:4], wanted, strict=False):
            [message] = await receive(browser, 1)
            assert message["subscribers"] == [name for name in channels if name in "ab"]


async def test_the_published_object_arrives_unchanged() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        body = (
            '{"big": 123456789012345678901234567890, "float": 1.0, "tiny": 1e-400, "nested": {"subscribers": [1]},'
            ' "text": "\\u0000 \\ud83d\\ude00 ü", "subscribers": ["a"], "null": null, "uniqueID": "é"}'
        )
        await node.ask("/", method="POST", body=body.encode())
        text = await browser.recv()
        assert isinstance(text, str)
        assert '"big":123456789012345678901234567890' in text
        assert '"tiny":1e-400' in text
        assert json.loads(text)["nested"] == {"subscribers": [1]}
        assert json.loads(text)["text"] == "\0 😀 ü"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Sec-WebSocket-Version": "8"}, 426, "unsupported_websocket_version"),
        ({"Sec-WebSocket-Key": "short"}, 400, "invalid_websocket_key"),
        ({"Connection": "close"}, 400, "connection_header_required"),
    ],
)
async def test_an_invalid_handshake_is_rejected(headers: dict[str, str], status: int, code: str) -> None:
    async with running_node() as node:
        all_headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            **headers,
        }
        got, answer = await node.ask("/ws/", port=node.client_port, headers=all_headers)
        assert (got, answer["code"]) == (status, code)


async def test_an_instance_name_that_is_too_long_is_rejected() -> None:
    async with running_node() as node:
        with pytest.raises(InvalidStatus) as refused:
            await connect(node.url("/~" + "x" * 257 + "/"))
        assert refused.value.response.status_code == 400


async def test_large_and_many_frames_arrive_complete() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        for number in range(50):
            await node.publish({"subscribers": ["a"], "n": number, "pad": "x" * 20_000})
        assert [m["n"] for m in await receive(browser, 50)] == list(range(50))


async def test_a_close_frame_is_answered_and_the_client_leaves() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        await browser.close(3001, "bye")
        assert browser.close_code == 3001
        assert (await node.status())["clients.active"] == 0
        assert (await node.publish({"subscribers": ["a"]}))["matched"] == 0
