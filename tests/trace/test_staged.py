"""Staged failures: for each, the trace has the right code. Real nodes, sockets and clients."""

import asyncio
import json
import re
import socket
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from websockets.asyncio.client import connect

from aphlict.core.message import parse_body
from aphlict.core.trace_report import CODES, SERVED, MessageCode, NodeCode, TraceAnswer, TraceQuery
from aphlict.core.trace_text import COUNTED, SINGLE
from tests.support.curl import curl
from tests.support.nodes import command, receive, running_node, subscribed
from tests.support.tokens import LEEWAY, key_file, token
from tests.support.waiting import eventually, eventually_async
from tests.trace.staging import SlowClient, clients, connection, left, trace

MANUAL = Path(__file__).parents[2] / "docs/monitoring.md"
NODE_CODES = ("responded", "message_missing", "node_unreachable", "node_without_trace", "process_silent")
CROWD = 300  # clients: more than a slice of a fan-out
MAX_MESSAGES = 256  # in the response to a poll
MAX_TRACES = 8  # at a time
M = {"subscribers": ["a"], "uniqueID": "m"}


async def test_a_message_that_all_received() -> None:
    async with running_node() as node:
        browsers = [await subscribed(node.url(), "a") for _ in range(3)]
        await node.publish(M)
        answer = await trace(node, "m")
        assert answer["found"] is True
        [found] = answer["nodes"]
        assert found["code"] == "responded"
        assert found["fingerprint"] == node.node.fingerprint
        [message] = found["messages"]
        assert message["is_own"] is True
        assert message["clients"] == {"written": 3}
        assert 0 <= message["delivered_at"] - message["at"] < 10
        assert abs(message["at"] - answer["now"]) < 60
        assert found["connections"] == []
        listed = (await trace(node, "m", connections="1"))["nodes"][0]["connections"]
        assert [each["code"] for each in listed] == ["written"] * 3
        assert {each["transport"] for each in listed} == {"websocket"}
        for browser in browsers:
            await browser.close()


async def test_not_subscribed() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "b")
        await node.publish(M)
        assert clients(await trace(node, "m")) == {"not_subscribed": 1}
        await browser.close()


async def test_subscribed_and_unsubscribed_before() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        await command(browser, "unsubscribe", ["a"])
        await node.publish(M)
        assert clients(await trace(node, "m")) == {"not_subscribed": 1}
        await browser.close()


async def test_another_instance() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url("/~acme/"), "a")
        bystander = await subscribed(node.url("/~acme/"), "b")
        await node.publish(M)
        answer = await trace(node, "m")
        assert clients(answer) == {"other_instance": 1}
        assert connection(answer)["code"] == "other_instance"
        assert connection(answer)["instance"] == "acme"
        await browser.close()
        await bystander.close()


async def test_connected_later() -> None:
    async with running_node() as node:
        await node.publish(M)
        await node.publish({"subscribers": ["b"]})
        browser = await subscribed(node.url(), "a")
        answer = await trace(node, "m")
        assert clients(answer) == {"connected_later": 1}
        found = connection(answer)
        assert found["code"] == "connected_later"
        assert found["seconds"] >= 0
        await browser.close()


async def test_subscribed_later_on_an_open_connection() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "b")
        await node.publish(M)
        await command(browser, "subscribe", ["a"])
        assert clients(await trace(node, "m")) == {"connected_later": 1}
        await browser.close()


async def test_connected_later_and_resumed() -> None:
    async with running_node() as node:
        await node.publish({"subscribers": ["a"], "uniqueID": "first"})
        await node.publish(M)
        browser = await subscribed(node.url(), "a")
        await browser.send(json.dumps({"command": "replay", "data": {"after": "first"}, "id": 1}))
        await receive(browser, 2)
        assert clients(await trace(node, "m")) == {"replayed": 1}
        await browser.close()


@pytest.mark.parametrize(("age", "code"), [(60_000, "replayed"), (0, "connected_later")])
async def test_connected_later_with_a_replay_by_age(age: int, code: str) -> None:
    async with running_node() as node:
        await node.publish(M)
        browser = await subscribed(node.url(), "a")
        await browser.send(json.dumps({"command": "replay", "data": {"age": age}, "id": 1}))
        await receive(browser, 2 if age else 1)
        assert clients(await trace(node, "m")) == {code: 1}
        await browser.close()


async def test_a_channel_added_after_the_resume() -> None:
    async with running_node() as node:
        await node.publish(M)
        browser = await subscribed(node.url(), "b")
        await browser.send(json.dumps({"command": "replay", "data": {"after": "x"}, "id": 1}))
        await receive(browser, 1)
        await node.publish({"subscribers": ["b"]})
        await receive(browser, 1)
        await command(browser, "subscribe", ["a"])
        assert clients(await trace(node, "m")) == {"connected_later": 1}
        await browser.close()


@pytest.mark.parametrize("target", ["/ws/", "/ws/events"])
async def test_a_client_that_does_not_read(target: str) -> None:
    async with running_node() as node:
        slow = await SlowClient(node, target).subscribe("a")
        number = await slow.fill("a")
        assert clients(await trace(node, "m0")) == {"written": 1}
        answer = await trace(node, f"m{number - 1}")
        assert clients(answer) == {"waiting": 1}
        assert connection(answer)["waiting_bytes"] > 0
        slow.close()


@pytest.mark.parametrize("target", ["/ws/", "/ws/events"])
async def test_dropped_for_slowness(target: str) -> None:
    async with running_node() as node:
        slow = await SlowClient(node, target).subscribe("a")
        names = await slow.overflow("a")
        await node.publish(M)
        assert clients(await trace(node, names[0])) == {"written": 1}
        answer = await trace(node, names[-1])
        assert clients(answer) == {"dropped_slow": 1}
        assert connection(answer)["seconds"] >= 0
        answer = await trace(node, "m")
        assert clients(answer) == {"dropped_slow": 1}
        assert -60 < connection(answer)["seconds"] < 0
        slow.close()


async def test_a_slow_client_that_reads_in_the_end() -> None:
    async with running_node() as node:
        context = node.node.server.context
        quick = await subscribed(node.url(), "a")
        slow = await SlowClient(node).subscribe("a")
        last = f"m{await slow.fill('a') - 1}"
        assert clients(await trace(node, last)) == {"written": 1, "waiting": 1}
        reading = asyncio.create_task(asyncio.to_thread(read_all, slow))
        await eventually(lambda: not context.buffer_budget.used, "the end of the backlog")
        await node.publish(M)
        for name, delayed in (("m0", 0), (last, 1), ("m", 0)):
            answer = await trace(node, name, connections="1")
            [message] = answer["nodes"][0]["messages"]
            assert message["clients"] == {"written": 2}
            assert message["delayed"] == delayed
            assert (message["taken_at"] > message["delivered_at"]) == bool(delayed)
            seconds = [each["seconds"] for each in answer["nodes"][0]["connections"]]
            assert sum(each is not None for each in seconds) == delayed
        slow.socket.shutdown(socket.SHUT_WR)
        assert b'"uniqueID":"m"' in await reading
        slow.close()
        await left(node, quick)
        assert (await trace(node, last))["nodes"][0]["messages"][0]["delayed"] == 1


async def test_what_a_slow_client_received_before_it_was_dropped() -> None:
    async with running_node() as node:
        slow = await SlowClient(node).subscribe("a")
        names = await slow.overflow("a")
        codes = [next(iter(clients(await trace(node, name)))) for name in names]
        data = await asyncio.to_thread(read_all, slow)
        received = [f'"uniqueID":"{name}"'.encode() in data for name in names]
        assert [code == "written" for code in codes] == received
        assert {"written", "dropped_slow"} == set(codes)
        slow.close()


def read_all(slow: SlowClient) -> bytes:
    data = b""
    while piece := slow.socket.recv(1 << 20):
        data += piece
    return data


async def test_a_client_that_left_before() -> None:
    async with running_node() as node:
        await left(node, await subscribed(node.url(), "a"))
        await node.publish(M)
        answer = await trace(node, "m")
        assert clients(answer) == {"client_left": 1}
        assert connection(answer)["seconds"] < 0
        assert connection(answer)["channels"] == ["a"]


async def test_a_rare_reason_among_many_others() -> None:
    async with running_node() as node:
        await left(node, *[await subscribed(node.url(), "a") for _ in range(10)])
        slow = await SlowClient(node).subscribe("a")
        await slow.overflow("a")
        await node.publish(M)
        answer = await trace(node, "m")
        assert clients(answer) == {"client_left": 10, "dropped_slow": 1}
        [found] = answer["nodes"]
        codes = [each["code"] for each in found["connections"]]
        assert (codes.count("client_left"), codes.count("dropped_slow"), found["omitted"]) == (5, 1, 5)
        listed = (await trace(node, "m", connections="1"))["nodes"][0]["connections"]
        assert len(listed) == 11
        slow.close()


async def test_a_client_that_left_after_it_received_the_message() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        await node.publish(M)
        await receive(browser, 1)
        await left(node, browser)
        assert clients(await trace(node, "m")) == {"written": 1}


async def test_a_client_that_left_after_it_connected_too_late() -> None:
    async with running_node() as node:
        await node.publish(M)
        await left(node, await subscribed(node.url(), "a"))
        assert clients(await trace(node, "m")) == {"connected_later": 1}


async def test_a_silent_client() -> None:
    async with running_node(ping__interval=0.5, ping__timeout=1) as node:
        silent = await SlowClient(node).subscribe("a")
        await eventually(lambda: not node.node.hub.connections, "the end of the silent client")
        await node.publish(M)
        assert clients(await trace(node, "m")) == {"timed_out": 1}
        silent.close()


async def test_a_token_without_the_channel(tmp_path: Path) -> None:
    async with running_node(client={"auth.keys": [key_file(tmp_path)]}) as node:
        url = f"{node.url()}?token={token('b', sub='alice')}"
        browser = await subscribed(url, "b")
        refused = await command(browser, "subscribe", ["a"])
        assert refused["type"] == "error"
        await node.publish(M)
        answer = await trace(node, "m", user="alice")
        assert clients(answer) == {"token_without_channel": 1}
        found = connection(answer)
        assert (found["user"], found["channels"]) == ("alice", ["b"])
        assert clients(await trace(node, "m")) == {"token_without_channel": 1}
        assert clients(await trace(node, "m", user="bob")) == {}
        await browser.close()


async def test_an_expired_token(tmp_path: Path) -> None:
    async with running_node(client={"auth.keys": [key_file(tmp_path)]}) as node:
        soon = token("a", sub="alice", exp=time.time() - LEEWAY + 0.5)
        browser = await subscribed(f"{node.url()}?token={soon}", "a")
        await eventually(lambda: not node.node.hub.connections, "the end of the grant")
        await node.publish(M)
        answer = await trace(node, "m", user="alice")
        assert clients(answer) == {"token_ended": 1}
        assert connection(answer)["user"] == "alice"
        await browser.close()


async def test_a_user_of_another_instance(tmp_path: Path) -> None:
    async with running_node(client={"auth.keys": [key_file(tmp_path)]}) as node:
        url = f"{node.url('/~acme/')}?token={token('b', sub='alice', instance='acme')}"
        browser = await subscribed(url, "b")
        await node.publish(M)
        answer = await trace(node, "m", user="alice")
        assert connection(answer)["code"] == "other_instance"
        await browser.close()


async def test_a_user_who_has_not_connected(tmp_path: Path) -> None:
    async with running_node(client={"auth.keys": [key_file(tmp_path)]}) as node:
        await node.publish(M)
        answer = await trace(node, user="alice")
        assert answer["found"] is False
        assert (await trace(node, "m", user="alice"))["nodes"][0]["connections"] == []


async def test_clients_that_had_to_resume() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        node.node.hub.sequencer.on_gap()
        await browser.wait_closed()
        await node.publish(M)
        assert clients(await trace(node, "m")) == {"resume_required": 1}


async def test_a_client_with_too_many_subscriptions() -> None:
    async with running_node(limits__subscriptions__total=40_000) as node:
        browser = await connect(node.url())
        await browser.send(json.dumps({"command": "subscribe", "data": ["a", *map(str, range(100))]}))
        await command(browser, "ping_is_unknown")
        await browser.send(
            json.dumps({"command": "subscribe", "data": [f"more {number}" for number in range(100)]})
        )
        await browser.wait_closed()
        await node.publish(M)
        assert clients(await trace(node, "m")) == {"dropped_limit": 1}


async def test_a_connection_that_broke_the_protocol() -> None:
    async with running_node() as node:
        raw = await SlowClient(node).subscribe("a")
        raw.socket.sendall(b"\xff\xff")
        await eventually(lambda: not node.node.hub.connections)
        await node.publish(M)
        assert clients(await trace(node, "m")) == {"connection_error": 1}
        raw.close()


async def test_a_process_that_stops() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        await node.node.server.drain()
        [ended] = node.node.server.context.ended.snapshot()
        assert ended.cause == "shutdown"
        await browser.close()


async def test_a_duplicate() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        await node.publish(M)
        await node.publish({**M, "text": "another content"})
        await node.publish({**M, "text": "and another"})
        answer = await trace(node, "m")
        [found] = answer["nodes"]
        assert found["message"] == "duplicate"
        assert found["messages"][0]["repeats"] == 2
        assert found["messages"][0]["repeated_at"] >= found["messages"][0]["at"]
        assert clients(answer) == {"written": 1}
        await browser.close()


async def test_a_message_that_was_evicted() -> None:
    async with running_node(limits__history=100_000) as node:
        await node.publish({**M, "text": "x" * 40_000})
        await node.publish({"subscribers": ["b"], "text": "x" * 40_000})
        answer = await trace(node, "m")
        assert answer["found"] is False
        assert answer["nodes"][0]["message"] == "evicted"
        assert answer["nodes"][0]["history_from"] > answer["nodes"][0]["started"]


async def test_a_message_that_was_never_published() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        await node.publish(M)
        answer = await trace(node, "n", connections="1")
        assert answer["found"] is False
        assert answer["nodes"][0]["connections"] == []
        await browser.close()
        assert answer["nodes"][0]["message"] == "unknown"
        assert answer["nodes"][0]["history_from"] == answer["nodes"][0]["started"] <= answer["now"]


async def test_a_message_for_another_channel() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "b")
        await node.publish(M)
        answer = await trace(node, "m", channel="b")
        assert answer["nodes"][0]["message"] == "other_channel"
        assert clients(answer) == {"not_subscribed": 1}
        await browser.close()


async def test_a_message_in_the_wrong_instance() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        await node.publish(M, instance="acme")
        answer = await trace(node, "m")
        assert clients(answer) == {"other_instance": 1}
        assert answer["nodes"][0]["messages"][0]["instance"] == "acme"
        assert (await trace(node, "m", instance="default"))["found"] is False
        await node.publish(M)
        answer = await trace(node, "m")
        assert answer["nodes"][0]["instances"] == ["acme"]
        assert clients(answer) == {"written": 1}
        await browser.close()


async def test_a_message_between_two_polls() -> None:
    async with running_node() as node:
        poll = f"http://localhost:{node.client_port}/ws/poll?channel=a"
        last = (await curl(f"{poll}&wait=0")).json["last"]
        await node.publish(M)
        answer = await trace(node, "m")
        assert clients(answer) == {"poll_answered": 1}
        assert connection(answer)["seconds"] < 0
        await curl(f"{poll}&wait=0&after={last}")
        assert clients(await trace(node, "m")) == {"replayed": 1}
        waiting = asyncio.create_task(curl(f"{poll}&wait=20&after=m"))
        await eventually(lambda: node.node.hub.connections)
        assert clients(await trace(node, "m")) == {"replayed": 1}
        await node.publish({"subscribers": ["a"]})
        await waiting
        assert clients(await trace(node, "m")) == {"replayed": 1}


async def test_polls_that_a_message_answers() -> None:
    async with running_node() as node:
        poll = f"http://localhost:{node.client_port}/ws/poll?channel=a"
        waiting = [asyncio.create_task(curl(f"{poll}&wait=20")) for _ in range(3)]
        await eventually(lambda: node.node.hub.connections == 3)
        await node.publish(M)
        answers = [(await each).json for each in waiting]
        assert clients(await trace(node, "m")) == {"written": 3}
        await curl(f"{poll}&wait=0&after={answers[0]['last']}")
        assert clients(await trace(node, "m")) == {"written": 3}
        await node.publish({"subscribers": ["a"], "uniqueID": "later"})
        assert clients(await trace(node, "later")) == {"poll_answered": 1}
        listed = (await trace(node, "m", connections="1"))["nodes"][0]["connections"]
        assert [(each["transport"], each["code"]) for each in listed] == [("poll", "written")] * 3


async def test_the_polls_of_a_channel_are_listed_once() -> None:
    async with running_node() as node:
        poll = f"http://localhost:{node.client_port}/ws/poll?channel=a&wait=20"
        waiting = asyncio.create_task(curl(poll))
        await eventually(lambda: node.node.hub.connections)
        await node.publish(M)
        last = (await waiting).json["last"]
        await node.publish({"subscribers": ["a"]})
        answer = await trace(node, channel="a", connections="1")
        [served, missed] = answer["nodes"][0]["messages"]
        assert (served["clients"], missed["clients"]) == ({"written": 1}, {"poll_answered": 1})
        assert connection(answer)["code"] == "poll_answered"
        await curl(f"{poll}&after={last}")
        waiting = asyncio.create_task(curl(poll))
        await eventually(lambda: node.node.hub.connections)
        assert connection(await trace(node, channel="a", connections="1"))["code"] == "open"
        await node.publish({"subscribers": ["a"]})
        await waiting


async def test_a_poll_that_has_no_room_for_all_messages() -> None:
    async with running_node() as node:
        for number in range(MAX_MESSAGES + 1):
            await node.publish({"subscribers": ["a"], "uniqueID": f"m{number}"})
        poll = f"http://localhost:{node.client_port}/ws/poll?channel=a&wait=0"
        answer = (await curl(f"{poll}&after=unknown")).json
        assert len(answer["messages"]) == MAX_MESSAGES
        assert clients(await trace(node, f"m{MAX_MESSAGES - 1}")) == {"replayed": 1}
        assert clients(await trace(node, f"m{MAX_MESSAGES}")) == {"poll_answered": 1}
        await curl(f"{poll}&after={answer['last']}")
        assert clients(await trace(node, f"m{MAX_MESSAGES}")) == {"replayed": 1}


async def test_the_user_of_a_poll(tmp_path: Path) -> None:
    async with running_node(client={"auth.keys": [key_file(tmp_path)]}) as node:
        url = f"http://localhost:{node.client_port}/ws/poll?channel=a&wait=0"
        await curl(url, "-H", f"Authorization: Bearer {token('a', sub='alice')}")
        await node.publish(M)
        assert connection(await trace(node, "m", user="alice"))["code"] == "poll_answered"
        assert (await trace(node, "m", user="bob"))["nodes"][0]["connections"] == []


async def test_a_fan_out_that_is_not_complete() -> None:
    async with running_node() as node:
        browsers = [await subscribed(node.url(), "a") for _ in range(CROWD)]
        hub, names = node.node.hub, [f"m{number}" for number in range(12)]
        objects = [{"subscribers": ["a"], "uniqueID": name} for name in names]
        for message in parse_body(json.dumps(objects).encode(), "default")[0]:
            assert hub.publish(message, time.monotonic()).matched == CROWD
        answer = await node.node.trace(TraceQuery(names[-1]), asks_peers=False)
        found = answer.nodes[0].messages[0].clients
        assert found["queued"] > 0
        assert sum(found.values()) == CROWD
        await eventually(lambda: not hub.fan_out.queued, "the deliveries")
        assert clients(await trace(node, names[-1])) == {"written": CROWD}
        await left(node, *browsers)


async def test_the_last_messages_and_the_subscribers_of_a_channel() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        for number in range(7):
            await node.publish({"subscribers": ["a"], "uniqueID": str(number)})
        await node.publish({"subscribers": ["b"], "uniqueID": "other"})
        answer = await trace(node, channel="a", connections="1")
        assert [each["uniqueID"] for each in answer["nodes"][0]["messages"]] == ["2", "3", "4", "5", "6"]
        assert all(each["clients"] == {"written": 1} for each in answer["nodes"][0]["messages"])
        assert connection(answer)["code"] == "open"
        assert (await trace(node, channel="c"))["found"] is False
        await left(node, browser)
        answer = await trace(node, channel="a", connections="1")
        assert connection(answer)["code"] == "client_left"


async def test_one_user_among_others(tmp_path: Path) -> None:
    async with running_node(client={"auth.keys": [key_file(tmp_path)]}) as node:
        urls = {name: f"{node.url()}?token={token('a', sub=name)}" for name in ("alice", "bob")}
        browsers = [await subscribed(url, "a") for url in urls.values()]
        gone = await subscribed(urls["alice"], "a")
        await left(node, gone)
        await node.publish(M)
        found = (await trace(node, "m", user="alice"))["nodes"][0]["connections"]
        assert [each["code"] for each in found] == ["written", "client_left"]
        assert {each["user"] for each in found} == {"alice"}
        found = (await trace(node, user="alice"))["nodes"][0]["connections"]
        assert [each["code"] for each in found] == ["open", "client_left"]
        for browser in browsers:
            await browser.close()


async def test_a_client_with_many_channels() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a", *map(str, range(20)))
        long = await subscribed(node.url(), *("x" * 200 + str(number) for number in range(4)), "a")
        await left(node, browser, long)
        await node.publish(M)
        answer = await trace(node, "m")
        assert clients(answer) == {"client_left": 1}  # the channel of the other one is beyond the first ones
        found = connection(answer)
        assert (len(found["channels"]), found["channel_count"]) == (8, 21)


async def test_requests_that_are_rejected() -> None:
    async with running_node(admin={"admin.secret": "s" * 20}) as node:
        secret = {"Authorization": f"Bearer {'s' * 20}"}
        requests: list[tuple[dict[str, Any], int]] = [
            ({}, 401),
            ({"headers": {**secret, "Origin": "http://example.com"}}, 403),
            ({"headers": secret, "method": "POST", "body": "{}"}, 405),
            ({"headers": secret}, 200),
        ]
        for request, status in requests:
            assert (await node.ask("/trace?id=m", **request))[0] == status
        for path in ("/trace", "/trace?id=", "/trace?connections=1", "/trace?id=%ff"):
            status, answer = await node.ask(path, headers=secret)
            assert (status, answer["code"]) == (400, "bad_request")


async def test_more_traces_than_wait() -> None:
    async with running_node() as node:
        tracer = node.node.trace
        released = asyncio.Event()

        async def wait(query: TraceQuery, /, *, asks_peers: bool) -> TraceAnswer:
            await released.wait()
            return await tracer(query, asks_peers=asks_peers)

        node.node.trace = wait  # type: ignore[assignment]
        asked = [asyncio.create_task(node.ask("/trace?id=m")) for _ in range(MAX_TRACES)]
        refused: list[tuple[int, Any]] = []

        async def is_refused() -> bool:
            asked.append(asyncio.create_task(node.ask("/trace?id=m")))
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            refused.extend(each.result() for each in done)
            return bool(done)

        await eventually_async(is_refused, "a refusal")
        assert {(status, answer["code"]) for status, answer in refused} == {(503, "too_many_traces")}
        released.set()
        assert [status for status, _ in await asyncio.gather(*asked)].count(200) == MAX_TRACES


def test_each_code_is_in_the_manual() -> None:
    manual = MANUAL.read_text().partition("\n## Why did this message not arrive?\n")[2].partition("\n## ")[0]
    tables = re.findall(r"^\| `(\w+)` \| .* \|$", manual, re.MULTILINE)
    assert tables == [*CODES, *get_args(MessageCode), *NODE_CODES]
    assert set(NODE_CODES) == set(get_args(NodeCode))
    assert set(COUNTED) == set(CODES) - SERVED
    assert set(SINGLE) == {*CODES, "open"}


def test_each_code_of_a_client_is_staged() -> None:
    source = Path(__file__).read_text()
    assert [code for code in CODES if f'"{code}"' not in source and code != "server_stopped"] == []
