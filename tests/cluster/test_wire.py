"""What nodes send each other about the numbers of their messages, and what they accept."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from aphlict.cluster.relay import Relay
from aphlict.core.message import parse_message
from aphlict.core.sequencer import Report
from aphlict.errors import InvalidMessage
from tests.cluster.messages import FAST, ORIGIN, OTHER_ORIGIN, message, numbered, relay_to
from tests.cluster.nodes import FakeNode, NodeJsServer, reply
from tests.support.hub import make_hub
from tests.support.nodes import command, receive, running_node, subscribed
from tests.support.numbering import FakeOrigin
from tests.support.waiting import eventually

KEY = "aphlict.origin"


def numbering(node: FakeNode, **reports: Sequence[float | None]) -> FakeNode:
    """Let a peer report how far it is with these origins, as nodes do that number messages."""
    node.reports = {"peerpeer": [0, 0.0, 0.0], **reports}
    return node


def afters(node: FakeNode) -> list[int]:
    """Return up to which number messages had been sent, for each request that a peer received."""
    found = [re.fullmatch(r"(\w{8}) (\d+) \d+\.\d{3}", each) for each in node.greetings]
    assert {each and each[1] for each in found} == {ORIGIN}
    return [int(each[2]) for each in found if each]


async def is_up(relay: Relay) -> None:
    """Wait until all peers are up."""
    await eventually(lambda: {peer["state"] for peer in relay.status()} == {"up"}, "peers that are up")


# To which peers numbers are sent


async def test_a_peer_that_numbers_messages_receives_numbers() -> None:
    async with numbering(FakeNode("B")).start() as node, relay_to(node.settings) as relay:
        relay.forward(numbered(1))
        relay.forward(numbered(7, OTHER_ORIGIN))
        await node.got(2)
        assert [each[KEY] for each in node.messages] == [f"{ORIGIN} 1", f"{OTHER_ORIGIN} 7"]


async def test_a_node_of_an_earlier_version_receives_no_numbers() -> None:
    async with FakeNode("B").start() as node, relay_to(node.settings) as relay:
        relay.forward(numbered(1))
        await node.got(1)
        relay.forward(numbered(2, touched=["B"]))
        relay.forward(numbered(3))
        await node.got(2)
        assert node.texts == ["1", "3"]
        assert not any(KEY in each for each in node.messages)


async def test_a_node_js_server_receives_no_numbers() -> None:
    async with NodeJsServer("N").start() as node, relay_to(node.settings) as relay:
        relay.forward(numbered(1))
        await node.got(1)
        assert KEY not in node.messages[0]


async def test_numbers_are_sent_once_a_peer_has_been_upgraded() -> None:
    async with FakeNode("old").start() as node, relay_to(node.settings) as relay:
        relay.forward(numbered(1))
        await node.got(1)
        await node.stop()
        numbering(node).fingerprint = "new"
        node.start()
        relay.forward(numbered(2))
        await node.got(2)
        assert [each.get(KEY) for each in node.messages] == [None, f"{ORIGIN} 2"]


# Which messages are sent


async def test_a_peer_receives_all_messages_of_this_node() -> None:
    """Their numbers have no holes, although a Node.js server has sent it some of them."""
    async with numbering(FakeNode("B")).start() as node, relay_to(node.settings) as relay:
        await is_up(relay)
        relay.forward(numbered(1, touched=["N", "B"]))
        relay.forward(numbered(2))
        await node.got(2)
        assert node.texts == ["1", "2"]


@pytest.mark.parametrize(
    ("report", "touched", "is_sent"),
    [
        (None, [], True),
        (None, ["B"], False),
        ([1, 0.0, None], [], True),  # by way of others only
        ([1, 0.0, None], ["B"], False),
        ([1, 0.0, 1.0], [], False),  # from its own node
        ([1, 0.0, 30.0], [], True),  # not any more
        ([1, 0.0, 1.0, True], [], True),  # its node has been replaced
    ],
)
async def test_a_message_of_another_node_is_sent_to_peers_that_do_not_receive_it_from_there(
    report: list[float | None] | None, touched: list[str], is_sent: bool
) -> None:
    reports = {} if report is None else {OTHER_ORIGIN: report}
    async with numbering(FakeNode("B"), **reports).start() as node, relay_to(node.settings) as relay:
        relay.forward(numbered(2, OTHER_ORIGIN, touched=touched))
        await is_up(relay)
        relay.forward(numbered(3, OTHER_ORIGIN, touched=touched))
        relay.forward(numbered(1))
        await eventually(lambda: "1" in node.texts, "the last message")
        assert node.texts == (["2", "3", "1"] if is_sent else ["1"])


async def test_what_a_peer_lacks_comes_before_what_is_queued_for_it() -> None:
    """It received these messages, and lost them when one of its processes was killed."""
    hub = make_hub(origin=ORIGIN)
    for number in range(1, 6):
        hub.publish(message(str(number)), time.monotonic())
    async with numbering(FakeNode("B")).start() as node, relay_to(node.settings, hub=hub) as relay:
        for number in range(1, 6):
            relay.forward(numbered(number))
        await node.got(5)
        await node.stop()
        await eventually(lambda: relay.status()[0]["state"] == "down", "a peer that is down")
        relay.forward(numbered(6))
        numbering(node, **{ORIGIN: [3, 0.0, 0.0]}).start()
        await node.got(8)
        assert node.texts == ["1", "2", "3", "4", "5", "4", "5", "6"]
        assert afters(node)[-2:] == [5, 3]


# How far this node has sent its messages


async def test_each_request_says_what_has_been_sent_before() -> None:
    async with numbering(FakeNode("B")).start() as node, relay_to(node.settings) as relay:
        await is_up(relay)
        for number in (1, 2):
            relay.forward(numbered(number))
            await node.got(number)
        await node.stop()
        node.start()
        await eventually(lambda: len(node.greetings) >= 4, "another status request")
        assert afters(node) == [0, 0, 1, 2]


async def test_queued_messages_have_not_been_sent() -> None:
    node = numbering(FakeNode("B")).start()
    await node.stop()
    async with node, relay_to(node.settings) as relay:
        for number in range(1, 601):
            relay.forward(numbered(number))
        await eventually(lambda: relay.status()[0]["state"] == "down", "a peer that is down")
        node.start()
        await node.got(600)
        assert afters(node) == [0, 0, 256, 512]


async def test_messages_in_flight_have_not_been_sent() -> None:
    async with (
        numbering(FakeNode("B")).start() as node,
        relay_to(node.settings, options=replace(FAST, response_timeout=1)) as relay,
    ):
        await is_up(relay)
        relay.forward(numbered(1))
        await node.got(1)
        node.is_hung = True
        relay.forward(numbered(2))
        await eventually(lambda: relay.status()[0]["state"] == "down", "a timeout")
        node.is_hung = False
        await node.got(2)
        assert set(afters(node)[2:]) == {1}


async def test_messages_that_were_dropped_are_never_sent() -> None:
    node = numbering(FakeNode("B")).start()
    await node.stop()
    async with node, relay_to(node.settings, options=replace(FAST, max_count=2)) as relay:
        for number in range(1, 6):
            relay.forward(numbered(number))
        await eventually(lambda: relay.status()[0]["state"] == "down", "a peer that is down")
        node.start()
        await node.got(2)
        assert node.texts == ["4", "5"]
        assert afters(node) == [3, 3]


async def test_messages_that_were_rejected_are_never_sent() -> None:
    node = numbering(FakeNode("B"))
    node.respond = lambda request: reply(413, error="never") if b'"bad"' in request.body else None
    async with node.start(), relay_to(node.settings) as relay:
        await is_up(relay)
        for number in (1, 2, 3):
            relay.forward(numbered(number, more="bad" if number == 2 else ""))
        await node.got(2)
        assert node.texts == ["1", "3"]
        assert afters(node)[-1] == 2


async def test_a_batch_of_one_instance_leaves_those_of_others_to_be_sent() -> None:
    node = numbering(FakeNode("B")).start()
    await node.stop()
    async with node, relay_to(node.settings) as relay:
        for number, instance in enumerate("xyxyx", 1):
            relay.forward(numbered(number, instance=instance))
        await eventually(lambda: relay.status()[0]["state"] == "down", "a peer that is down")
        node.start()
        await node.got(5)
        assert node.texts == ["1", "3", "5", "2", "4"]
        assert afters(node) == [0, 0, 1]


async def test_messages_of_other_nodes_do_not_count() -> None:
    node = numbering(FakeNode("B")).start()
    await node.stop()
    async with node, relay_to(node.settings) as relay:
        relay.forward(numbered(5, OTHER_ORIGIN))
        relay.forward(numbered(1))
        await eventually(lambda: relay.status()[0]["state"] == "down", "a peer that is down")
        node.start()
        await node.got(2)
        await node.stop()
        await eventually(lambda: relay.status()[0]["state"] == "down", "a peer that is down")
        node.start()
        await eventually(lambda: len(node.greetings) >= 3, "another status request")
        assert afters(node) == [0, 0, 1]


# What a node accepts


async def test_the_status_for_a_node_has_reports() -> None:
    other = FakeOrigin()
    async with running_node() as node:
        await node.publish({"subscribers": ["a"]})
        await other.send(node.admin_port, 1)
        reports = (await other.greet(node.admin_port, after=1))["origins"]
        own = node.node.hub.origins.own
        assert own is not None
        assert reports[own.name] == [1, 0.0, 0.0, False]
        assert set(reports) == {own.name, other.origin}
        number, heard, greeted, has_ended = reports[other.origin]
        assert (number, has_ended) == (1, False)
        assert 0 <= heard <= 10
        assert 0 <= greeted <= 10
        assert "origins" not in await node.status()


@pytest.mark.parametrize(
    "value",
    [
        "",
        "testtest",
        "testtest 0",
        "testtest 0 0 0",
        "testtes 0 0",
        "testtestt 0 0",
        "testtes! 0 0",
        "testtést 0 0",
        "testtest -1 0",
        "testtest 1.5 0",
        "testtest 1e3 0",
        "testtest 1234567890123456 0",
        "testtest 0 -1",
        "testtest 0 nan",
        "testtest 0 inf",
        "testtest 0 1.1234567",
        "testtest 0 1234567890123",
        "testtest  0 0",
        "testtest,0,0",
    ],
)
async def test_a_malformed_header_is_ignored(value: str) -> None:
    other = FakeOrigin()
    fields = {"X-Aphlict-Node": "other", "X-Aphlict-Origin": value}
    async with running_node() as node:
        status, answer = await other.request(node.admin_port, "/status/", fields)
        assert status == 200
        assert "origins" not in answer
        browser = await subscribed(node.url(), "a")
        body = json.dumps(other.message(7))
        assert (await other.request(node.admin_port, "/", fields, body))[0] == 200
        [received] = await receive(browser, 1)
        assert received == {"uniqueID": "m7", "n": 7, "subscribers": ["a"]}
        assert list(node.node.report().values()) == [Report(1, 0.0, 0.0)]


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        [],
        {},
        "",
        "testtest",
        "testtest 0",
        "testtest 01",
        "testtest -1",
        "testtest 1.0",
        "testtest 1 2",
        "testtest 1 ",
        "testtest 1234567890123456",
        "testtest\N{ARABIC-INDIC DIGIT ONE} 1",
        "testtest \N{ARABIC-INDIC DIGIT ONE}",
        "test 1",
    ],
)
async def test_a_malformed_number_is_rejected(value: object) -> None:
    other = FakeOrigin()
    async with running_node() as node:
        for messages in (
            [other.message(1), {**other.message(2), KEY: value}],
            {**other.message(1), KEY: value},
        ):
            status, answer = await other.request(node.admin_port, "/", other.fields(0), json.dumps(messages))
            assert (status, answer["code"]) == (400, "invalid_message")
        assert (await node.status())["messages.in"] == 0


async def test_a_message_of_a_node_may_have_no_number() -> None:
    """Its node has numbered all messages for this one; a Node.js server's message is numbered here."""
    other = FakeOrigin()
    async with running_node() as node:
        body = json.dumps({"subscribers": ["a"], "uniqueID": "m1"})
        status, answer = await other.request(node.admin_port, "/", other.fields(0), body)
        assert (status, answer["uniqueID"]) == (200, "m1")
        own = node.node.hub.origins.own
        assert own is not None
        assert own.number == 1


async def test_a_number_of_a_publisher_means_nothing_and_is_not_delivered() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        for value in ("testtest 7", None, 7, "?"):
            receipt = await node.publish({"subscribers": ["a"], KEY: value, "text": "hi"})
            assert receipt["matched"] == 1
            [received] = await receive(browser, 1)
            assert received == {"uniqueID": receipt["uniqueID"], "text": "hi", "subscribers": ["a"]}
        assert len(node.node.report()) == 1


async def test_numbers_beyond_all_others_harm_only_their_own_origin() -> None:
    other, good = FakeOrigin(), FakeOrigin("goodgood", fingerprint="good")
    async with running_node() as node:
        await good.greet(node.admin_port)
        await other.greet(node.admin_port, after=999_999_999_999_999)
        browser = await subscribed(node.url(), "a")
        await other.send(node.admin_port, 999_999_999_999_999)
        await good.send(node.admin_port, 1)
        assert [each["uniqueID"] for each in await receive(browser, 1)] == ["m1"]
        assert (await command(browser, "subscribe", ["b"]))["type"] == "ack"


async def test_the_origins_of_a_flood_of_nodes_are_bounded() -> None:
    async with running_node() as node:
        for number in range(1100):
            await FakeOrigin(f"{number:08d}", fingerprint=str(number)).greet(node.admin_port)
        assert len(node.node.report()) <= 1024
        browser = await subscribed(node.url(), "a")
        last = (await command(browser, "subscribe", ["b"]))["last"]
        assert len(last) <= 2048


@given(
    st.dictionaries(st.sampled_from([KEY, "subscribers", "uniqueID"]), st.text() | st.integers() | st.none())
)
def test_any_number_is_read_or_rejected(fields: dict[str, object]) -> None:
    raw = {name: Raw(json.dumps(value).encode()) for name, value in {"subscribers": ["a"], **fields}.items()}
    try:
        made = parse_message(raw, "default", from_node=True)
    except InvalidMessage:
        return
    if KEY in fields:
        assert fields[KEY] == f"{made.origin} {made.number}"
        assert made.number > 0


# What a node makes of the reports of a peer


@pytest.mark.parametrize(
    "reports",
    [
        {"": [1, 99.0, None]},
        {"x" * 100: [1, 99.0, None]},
        {"gonegon.": [1, 99.0, None]},
        {"gonegone": [-1, 99.0, None]},
        {"gonegone": [2**60, 99.0, None]},
        {"gonegone": [1, -99.0, None, True]},
    ],
)
async def test_reports_that_no_node_makes_are_ignored(reports: dict[str, Sequence[float | None]]) -> None:
    async with FakeNode("B") as node:
        node.reports = reports
        node.start()
        async with running_node(cluster=[{"host": "127.0.0.1", "port": node.port}]) as real:
            await eventually(lambda: node.looks >= 2, "a status request")
            assert len(real.node.report()) == 1
            assert (await real.status())["peers"][0]["state"] == "up"
