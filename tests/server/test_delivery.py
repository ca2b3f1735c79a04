"""Delivery: each message once, in order, and none lost over a reconnect."""

import asyncio
import json
from typing import Any

from websockets.asyncio.client import connect

from aphlict.core.message import parse_body
from tests.server.test_client_port import replay
from tests.support.hub import join
from tests.support.nodes import command, receive, running_node, subscribed
from tests.support.waiting import eventually


async def test_the_server_adds_a_missing_unique_id() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        first = await node.publish({"subscribers": ["a"]})
        second = await node.publish({"subscribers": ["a"], "uniqueID": None})
        assert [m["uniqueID"] for m in await receive(browser, 2)] == [first["uniqueID"], second["uniqueID"]]
        assert first["uniqueID"] != second["uniqueID"]


async def test_a_unique_id_is_delivered_once() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        for number in range(3):
            receipt = await node.publish({"subscribers": ["a"], "uniqueID": "u", "n": number})
            assert receipt.get("duplicate", False) == (number > 0)
        await node.publish({"subscribers": ["a"], "n": "last"})
        assert [m["n"] for m in await receive(browser, 2)] == [0, "last"]


async def test_the_same_unique_id_in_another_instance_is_another_message() -> None:
    async with running_node() as node:
        await node.publish({"subscribers": ["a"], "uniqueID": "u"}, instance="x")
        receipt = await node.publish({"subscribers": ["a"], "uniqueID": "u"}, instance="y")
        assert "duplicate" not in receipt


async def test_a_message_that_this_node_has_touched_is_acknowledged_only() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        receipt = await node.publish({"subscribers": ["a"], "touched": [node.node.fingerprint]})
        assert receipt["fingerprint"] == node.node.fingerprint
        await node.publish({"subscribers": ["a"], "n": 2})
        assert [m.get("n") for m in await receive(browser, 1)] == [2]
        assert (await node.status())["history.size"] == 1


async def test_every_client_receives_messages_in_the_same_order() -> None:
    async with running_node() as node:
        crowd = [await subscribed(node.url(), "crowd", f"own-{n}") for n in range(600)]
        wanted = []
        for number in range(20):
            # Fan-outs of several slices, and single messages that must not overtake them.
            await node.publish({"subscribers": ["crowd"], "n": 2 * number})
            await node.publish({"subscribers": [f"own-{n}" for n in range(600)], "n": 2 * number + 1})
            wanted += [2 * number, 2 * number + 1]
        for browser in crowd:
            assert [m["n"] for m in await receive(browser, 40)] == wanted


async def test_replay_after_sends_all_later_messages_and_their_number() -> None:
    async with running_node() as node:
        ids = [(await node.publish({"subscribers": ["a"], "n": n}))["uniqueID"] for n in range(5)]
        browser = await subscribed(node.url(), "a")
        *messages, ack = await replay(browser, {"after": ids[2]})
        assert [m["n"] for m in messages] == [3, 4]
        assert len(await replay(browser, {"after": ack.pop("last")})) == 1, "nothing but the ack"
        assert ack == {"type": "ack", "id": 1, "count": 2, "recovered": True}


async def test_replay_after_an_unknown_message_sends_all_as_not_recovered() -> None:
    async with running_node() as node:
        await node.publish({"subscribers": ["a"], "n": 0})
        browser = await subscribed(node.url(), "a")
        *messages, ack = await replay(browser, {"after": "long ago"})
        assert [m["n"] for m in messages] == [0]
        assert ack["recovered"] is False


async def test_replay_after_does_not_repeat_live_messages() -> None:
    async with running_node() as node:
        first = await node.publish({"subscribers": ["a"], "n": 0})
        await node.publish({"subscribers": ["a"], "n": 1})
        browser = await subscribed(node.url(), "a")
        await node.publish({"subscribers": ["a"], "n": 2})
        received = await replay(browser, {"after": first["uniqueID"]})
        assert sorted(m["n"] for m in received[:-1] if "n" in m) == [1, 2]


async def test_replay_after_several_omits_messages_seen_in_another_order() -> None:
    async with running_node() as node:
        ids = [(await node.publish({"subscribers": ["a"], "n": n}))["uniqueID"] for n in range(6)]
        browser = await subscribed(node.url(), "a")
        *messages, ack = await replay(browser, {"after": ["gone", ids[3], ids[1]]})
        assert [m["n"] for m in messages] == [2, 4, 5]
        assert ack["recovered"] is True


async def test_a_client_that_keeps_reconnecting_misses_and_repeats_nothing() -> None:
    async with running_node() as node:
        seen: list[int] = []
        last = (await node.publish({"subscribers": ["a"], "n": -1}))["uniqueID"]

        async def publish() -> None:
            for number in range(400):
                await node.publish({"subscribers": ["a"], "n": number})

        publishing = asyncio.create_task(publish())
        while len(seen) < 400:
            async with connect(node.url()) as browser:
                await browser.send(json.dumps({"command": "subscribe", "data": ["a"]}))
                await browser.send(json.dumps({"command": "replay", "data": {"after": last}, "id": "r"}))
                for _ in range(20):
                    message = json.loads(await asyncio.wait_for(browser.recv(), 5))
                    if "n" in message:
                        seen.append(message["n"])
                        last = message["uniqueID"]
                    if len(seen) == 400:
                        break
        await publishing
        assert seen == list(range(400))


async def test_the_ack_of_a_replay_follows_the_replayed_messages() -> None:
    async with running_node() as node:
        pad = "x" * 5000
        for _ in range(0, 1000, 100):
            await node.publish(*({"subscribers": ["a"], "pad": pad} for _ in range(100)))
        browser = await subscribed(node.url(), "a")
        received = await replay(browser, {"after": "?"})
        assert len(received) == 1001
        assert received[-1]["count"] == 1000


async def test_commands_with_an_id_are_answered() -> None:
    async with running_node() as node, connect(node.url()) as browser:
        for name, data in (("subscribe", ["a"]), ("unsubscribe", ["a"]), ("replay", {})):
            assert (await command(browser, name, data))["type"] == "ack"
        await browser.send('{"command": "ping", "id": 7}')
        pong, ack = await receive(browser, 2)
        assert pong == {"type": "pong"}
        assert (ack["type"], ack["id"]) == ("ack", 7)


async def test_commands_without_an_id_are_not_answered() -> None:
    async with running_node() as node, connect(node.url()) as browser:
        await node.publish({"subscribers": ["a"], "n": 1})
        for name, data in (
            ("subscribe", ["a"]),
            ("unsubscribe", ["b"]),
            ("subscribe", 7),
            ("fly", None),
            ("replay", {"age": 60_000}),
            ("replay", {"after": "unknown"}),
            ("ping", None),
        ):
            await browser.send(json.dumps({"command": name, "data": data}))
        once, again, pong = await receive(browser, 3)
        assert (once["n"], again["n"], pong) == (1, 1, {"type": "pong"})


async def test_an_invalid_command_with_an_id_is_answered_with_an_error() -> None:
    async with running_node() as node, connect(node.url()) as browser:
        answer = await command(browser, "fly")
        assert answer["type"] == "error"
        assert answer["code"] == "invalid_command"
        await browser.send('{"id": "x", "command": {}}')
        [answer] = await receive(browser, 1)
        assert (answer["type"], answer["id"]) == ("error", "x")


async def test_a_list_with_too_many_subscriptions_adds_none() -> None:
    async with running_node(limits__subscriptions=3) as node:
        browser = await subscribed(node.url(), "a", "b")
        assert (await command(browser, "subscribe", ["c", "d"]))["type"] == "error"
        assert (await node.publish({"subscribers": ["c"]}))["matched"] == 0
        assert (await command(browser, "subscribe", ["c", "a"]))["type"] == "ack"


async def test_an_unused_instance_is_removed() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url("/~gone/"), "a")
        assert "gone" in node.node.hub.instances
        await browser.close()
        node.node.hub.sweep(0.0)
        assert "gone" not in node.node.hub.instances


async def test_a_long_list_for_many_clients_does_not_block_the_loop() -> None:
    turns = 0
    receipts: list[Any] = []

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not receipts:
            asyncio.get_running_loop().call_soon(turn)

    async with running_node(limits__delivery_queue=10_000_000) as node:
        hub = node.node.hub
        readers = [join(hub, "A", "B") for _ in range(5000)]
        body = json.dumps([{"subscribers": ["A", "B"], "uniqueID": str(number)} for number in range(300)])
        messages, _ = parse_body(body.encode(), "default")
        turn()
        node.node.publish(messages, receipts.extend)
        await eventually(lambda: receipts, "the receipts")
        assert turns > 2
        expected = [str(number) for number in range(300)]
        assert [(each.unique_id, each.matched) for each in receipts] == [(name, 5000) for name in expected]
        first, last = readers[0][0], readers[-1][0]
        await eventually(lambda: len(first.deliveries) == len(last.deliveries) == 300, "the messages")
        assert first.ids == last.ids == expected
