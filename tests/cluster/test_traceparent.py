"""A `traceparent` (W3C Trace Context) reaches subscribers, other nodes and the log as it was published."""

import json
import logging
from typing import Any

import pytest

from aphlict import log_events
from tests.cluster.messages import message, relay_to
from tests.cluster.nodes import FakeNode, NodeJsServer, reply
from tests.support.nodes import RunningNode, receive, running_cluster, running_node, subscribed
from tests.support.waiting import eventually
from tests.trace.staging import trace

FIRST = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SECOND = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


async def publish(node: RunningNode, header: str, *messages: dict[str, Any]) -> None:
    """Publish with a header."""
    body = json.dumps(messages[0] if len(messages) == 1 else messages)
    status, _ = await node.ask("/", method="POST", body=body, headers={"Traceparent": header})
    assert status == 200


def logged(caplog: pytest.LogCaptureFixture, event: log_events.LogEvent) -> list[dict[str, Any]]:
    """The values of the lines of an event."""
    return [
        dict(zip(event.fields, record.args, strict=True))
        for record in caplog.records
        if record.msg is event and isinstance(record.args, tuple)
    ]


async def test_header_and_field_reach_the_subscribers_of_all_nodes() -> None:
    async with running_cluster(2) as nodes:
        browsers = [await subscribed(node.url(), "a") for node in nodes]
        batch: list[dict[str, Any]] = [{"subscribers": ["a"], "traceparent": SECOND}, {"subscribers": ["a"]}]
        await publish(nodes[0], FIRST, *batch)
        for node, browser in zip(nodes, browsers, strict=True):
            received = await receive(browser, 2)
            assert [each["traceparent"] for each in received] == [SECOND, FIRST]
            for each in received:
                answer = await trace(node, each["uniqueID"])
                assert answer["nodes"][0]["messages"][0]["traceparent"] == each["traceparent"]


async def test_a_malformed_header_changes_nothing() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        await publish(node, f"{FIRST}, {SECOND}", {"subscribers": ["a"], "uniqueID": "m"})
        assert await receive(browser, 1) == [{"subscribers": ["a"], "uniqueID": "m"}]


async def test_the_trace_is_in_the_line_of_a_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="aphlict")
    async with running_node() as node:
        await publish(node, FIRST, {"subscribers": ["a"], "uniqueID": "traced"})
        await node.publish({"subscribers": ["a"], "uniqueID": "untraced"})
    lines = {line["unique_id"]: line["traceparent"] for line in logged(caplog, log_events.PUBLISHED)}
    assert lines["traced"].value == FIRST
    assert f"(traceparent {FIRST})" in caplog.text
    assert lines["untraced"].value is None


async def test_the_trace_is_in_the_warning_about_a_message(caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode("B").start()
    node.respond = lambda request: reply(400, error="never") if request.method == "POST" else None
    async with node, relay_to(node.settings) as relay:
        relay.forward(message("bad", traceparent=FIRST))
        await eventually(lambda: logged(caplog, log_events.PEER_MESSAGE_REJECTED), "a warning")
    [line] = logged(caplog, log_events.PEER_MESSAGE_REJECTED)
    assert (line["unique_id"], line["traceparent"].value) == ("bad", FIRST)


async def test_node_js_servers_receive_the_trace() -> None:
    server = NodeJsServer("N").start()
    async with server, relay_to(server.settings) as relay:
        relay.forward(message("m", traceparent=FIRST))
        await server.got(1)
        assert server.messages[0]["traceparent"] == FIRST
