"""Server-Sent Events, as curl receives them."""

import asyncio
import json
import socket
from contextlib import AsyncExitStack

from aphlict.server import sse
from aphlict.server.http_connection import HTTPConnection
from aphlict.server.sse import EventStream, encode_data
from tests.support.curl import Block, curl, event_source
from tests.support.nodes import RunningNode, has_all, running_cluster, running_node
from tests.support.waiting import eventually, eventually_async


def at(node: RunningNode, path: str) -> str:
    return f"{'https' if node.tls else 'http'}://localhost:{node.client_port}{path}"


def names(blocks: list[Block]) -> list[str]:
    return [block.json["uniqueID"] for block in blocks]


async def test_messages_arrive_as_events() -> None:
    async with running_node() as node, event_source(at(node, "/ws/events?channel=a&channel=b")) as source:
        await node.publish({"subscribers": ["a", "b", "c"], "uniqueID": "one", "text": "é"})
        await node.publish({"subscribers": ["b"], "uniqueID": "two"})
        one, two = await source.events(2)
        assert one.json == {"subscribers": ["a", "b"], "uniqueID": "one", "text": "é"}
        assert names([one]) == ["one"]
        assert two.json["subscribers"] == ["b"]


async def test_the_head_keeps_proxies_from_buffering() -> None:
    async with running_node() as node:
        answer = await asyncio.create_subprocess_exec(
            "curl", "-sSN", "-i", at(node, "/events?channel=a"), stdout=asyncio.subprocess.PIPE
        )
        assert answer.stdout is not None
        head = (await answer.stdout.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 200 OK\r\n")
        for line in (
            "Content-Type: text/event-stream; charset=utf-8",
            "Cache-Control: no-store, no-transform",
            "X-Accel-Buffering: no",
            "Access-Control-Allow-Origin: *",
        ):
            assert f"\r\n{line}\r\n" in head
        assert (await answer.stdout.readuntil(b"\n\n")).startswith(b": ")
        answer.kill()
        await answer.wait()


async def test_the_instance_is_in_the_path() -> None:
    async with running_node() as node:
        async with event_source(at(node, "/ws/~acme/events?channel=a")) as source:
            await node.publish({"subscribers": ["a"], "uniqueID": "other"})
            await node.publish({"subscribers": ["a"], "uniqueID": "acme"}, instance="acme")
            assert names([await source.event()]) == ["acme"]
            assert (await node.status("acme"))["clients.active"] == 1
        assert await eventually(lambda: node.node.hub.connections == 0)


async def test_a_client_that_reconnects_receives_what_it_missed() -> None:
    async with running_node() as node:
        for name in ("one", "two", "three"):
            await node.publish({"subscribers": ["a"], "uniqueID": name})
        async with event_source(at(node, "/events?channel=a"), "-H", "Last-Event-ID: one") as source:
            assert names(await source.events(2)) == ["two", "three"]
            mark = (await source.block()).id
        assert mark is not None
        await node.publish({"subscribers": ["a"], "uniqueID": "four"})
        for resume in ("-H", f"Last-Event-ID: {mark}"), ("-G", "-d", f"after={mark}"):
            async with event_source(at(node, "/events?channel=a"), *resume) as source:
                assert names([await source.event()]) == ["four"]


async def test_several_unique_ids_resume_from_the_oldest() -> None:
    async with running_node() as node:
        for name in ("one", "two", "three", "four,five"):
            await node.publish({"subscribers": ["a"], "uniqueID": name})
        for query in ("after=two&after=three", "after=two,three", "after=two,gone,three"):
            async with event_source(at(node, f"/events?channel=a&{query}")) as source:
                assert names([await source.event()]) == ["four,five"]
        async with event_source(at(node, "/events?channel=a&after=four,five")) as source:
            assert "data" not in (await source.block()).fields


async def test_a_gap_event_precedes_the_remaining_messages() -> None:
    async with running_node() as node:
        await node.publish({"subscribers": ["a"], "uniqueID": "one"})
        async with event_source(at(node, "/events?channel=a&after=gone")) as source:
            gap, one = await source.events(2)
            assert gap.fields["event"] == "gap"
            assert names([one]) == ["one"]


async def test_a_stream_has_a_resume_token_before_the_first_message() -> None:
    async with running_node() as node:
        async with event_source(at(node, "/events?channel=a")) as source:
            mark = (await source.block()).id
        await node.publish({"subscribers": ["a"], "uniqueID": "one"})
        async with event_source(at(node, f"/events?channel=a&after={mark}")) as source:
            assert names([await source.event()]) == ["one"]


async def test_a_quiet_stream_sends_comments() -> None:
    async with running_node() as node, event_source(at(node, "/events?channel=a")) as source:
        await source.block()
        [connection] = connections(node)
        stream = connection.responder
        assert isinstance(stream, EventStream)
        assert stream.on_deadline(100.0) == 100.0 + sse.COMMENT_INTERVAL == 125.0
        block = await source.block()
        assert "" in block.fields, "a comment"
        assert block.id is not None
        assert "data" not in block.fields


async def test_a_shorter_ping_interval_applies_to_streams() -> None:
    async with (
        running_node(ping__interval=0.3) as node,
        event_source(at(node, "/events?channel=a")) as source,
    ):
        await source.block()
        assert "" in (await asyncio.wait_for(source.block(), 5)).fields


async def test_an_unreachable_client_is_dropped() -> None:
    async with running_node(ping__timeout=40) as node, event_source(at(node, "/events?channel=a")):
        [connection] = connections(node)
        assert connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 40_000


def connections(node: RunningNode) -> list[HTTPConnection]:
    """Return the connections of clients."""
    return [each for each in node.node.server.connections() if isinstance(each, HTTPConnection)]


def test_an_event_has_one_line_of_data_for_each_line() -> None:
    assert encode_data(b'{"a":\r\n1,\n"b":2}') == b'\ndata: {"a":\ndata: 1,\ndata: "b":2}\n\n'


async def test_no_unique_id_breaks_the_stream() -> None:
    async with running_node() as node, event_source(at(node, "/events?channel=a")) as source:
        await node.publish({"subscribers": ["a"], "uniqueID": "u\ndata: x\n\n"})
        event = await source.event()
        assert names([event]) == ["u\ndata: x\n\n"]
        async with event_source(at(node, f"/events?channel=a&after={event.id}")) as again:
            await node.publish({"subscribers": ["a"], "uniqueID": "next"})
            assert names([await again.event()]) == ["next"]


async def test_a_standard_event_source_resumes_from_any_event_at_any_node() -> None:
    """It sends the `id` of the last event and nothing else. Nodes receive concurrent messages in different orders."""
    order = [f"m{number}" for number in range(6)]
    async with running_cluster(2) as (here, there):
        async with event_source(at(here, "/events?channel=a")) as source:
            begin = (await source.block()).id
            for name in order:
                await (here if name in order[::2] else there).publish(
                    {"subscribers": ["a"], "uniqueID": name}
                )
            live = await source.events(6)
        await eventually_async(lambda: has_all((here, there), 6))
        async with event_source(at(here, f"/events?channel=a&after={begin}")) as source:
            replayed = await source.events(6)
        assert names(live) == names(replayed)
        assert sorted(names(live)) == order
        for count, event in enumerate(live, 1):
            resume = "-H", f"Last-Event-ID: {event.id}"
            for node in (here, there):
                async with event_source(at(node, "/events?channel=a"), *resume) as source:
                    rest = names(await source.events(6 - count))
                    assert sorted(rest) == sorted(names(live)[count:])
                    assert "data" not in (await source.block()).fields


async def test_a_long_event_arrives_complete() -> None:
    text = "x" * 20_000
    async with running_node() as node, event_source(at(node, "/events?channel=a")) as source:
        begin = (await source.block()).id
        await node.publish({"subscribers": ["a"], "uniqueID": "one", "text": text})
        event = await source.event()
        assert event.json["text"] == text
        assert event.id != begin


async def test_a_body_with_line_breaks_arrives_complete() -> None:
    async with running_node() as node, event_source(at(node, "/events?channel=a")) as source:
        body = b'{\n"subscribers":\n["a"],\n"deep": {\r\n"n":\n\n1}}'
        status, _ = await node.ask("/", method="POST", body=body)
        assert status == 200
        assert json.loads((await source.event()).fields["data"])["deep"] == {"n": 1}


async def test_streams_end_at_shutdown() -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(running_node())
        source = await stack.enter_async_context(event_source(at(node, "/events?channel=a")))
        await node.publish({"subscribers": ["a"], "uniqueID": "one"})
        await node.node.drain()
        assert (await source.end()).endswith(b'data: {"uniqueID":"one","subscribers":["a"]}\n\n')


async def test_a_slow_client_is_dropped_and_resumes() -> None:
    async with running_node(limits__send_buffer=100_000) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.client_port, limit=1024)
        writer.write(b"GET /events?channel=a HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"id: ~")
        for n in range(200):
            await node.publish({"subscribers": ["a"], "uniqueID": str(n), "text": "x" * 50_000})
        await eventually(lambda: node.node.hub.connections == 0)
        writer.close()
        async with event_source(at(node, "/events?channel=a&after=197")) as source:
            assert names(await source.events(2)) == ["198", "199"]


async def test_invalid_requests_are_rejected() -> None:
    async with running_node(limits__subscriptions=3, limits__name=8) as node:
        for query, code in (
            ("", "bad_request"),
            ("?channel=%ff", "bad_request"),
            ("?channel=toolongname", "name_too_long"),
            ("?channel=1&channel=2&channel=3&channel=4", "too_many_subscriptions"),
        ):
            for path in ("events", "poll"):
                answer = await curl(at(node, f"/{path}{query}"))
                assert (answer.status, answer.json["code"]) == (400, code)
                assert answer.headers["access-control-allow-origin"] == "*"
        assert (await curl(at(node, "/~verylongname/events?channel=1"))).status == 400
        assert node.node.hub.connections == 0


async def test_other_methods_and_other_paths() -> None:
    async with running_node() as node:
        for method in ("POST", "DELETE"):
            answer = await curl(at(node, "/events?channel=a"), "-X", method)
            assert answer.status == 405
            assert answer.headers["allow"] == "GET, OPTIONS"
        answer = await curl(at(node, "/events?channel=a"), "-I")
        assert answer.status == 405
        assert answer.body == b""
        for path in ("/eventsx", "/events/", "/xevents", "/"):
            assert (await curl(at(node, path))).status == 501


async def test_preflight_requests_of_other_sites() -> None:
    async with running_node() as node:
        for path in ("/events", "/ws/~acme/poll"):
            answer = await curl(
                at(node, path),
                *("-X", "OPTIONS", "-H", "Origin: https://phorge.example"),
                *("-H", "Access-Control-Request-Method: GET"),
                *("-H", "Access-Control-Request-Headers: last-event-id"),
            )
            assert answer.status == 204
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "GET" in answer.headers["access-control-allow-methods"]
            assert "Last-Event-ID" in answer.headers["access-control-allow-headers"]
