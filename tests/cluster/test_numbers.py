"""Messages that another node has numbered: their order, what is missing between them, and what is repaired."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection

from tests.support.nodes import RunningNode, command, receive, running_node, subscribed
from tests.support.numbering import FakeOrigin

HOLD = 1.0  # seconds for which a message waits for those before it


@asynccontextmanager
async def node_with_client(channel: str = "a") -> AsyncIterator[tuple[RunningNode, ClientConnection]]:
    """Run a node with one client."""
    async with running_node() as node:
        yield node, await subscribed(node.url(), channel)


async def numbers(browser: ClientConnection, count: int) -> list[int]:
    """Return the numbers of the next messages."""
    return [message["n"] for message in await receive(browser, count)]


async def is_connected(browser: ClientConnection) -> None:
    """Assert that a client is connected, and that no message is on its way to it."""
    assert (await command(browser, "subscribe", ["b"]))["type"] == "ack"


async def has_to_resume(browser: ClientConnection) -> None:
    """Wait until a client is disconnected since messages were lost."""
    await asyncio.wait_for(browser.wait_closed(), 10)
    assert browser.close_code == 1013


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings about messages that are missing."""
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return [line for line in lines if "never arrived" in line]


# Order


async def test_messages_are_delivered_in_the_order_of_their_numbers() -> None:
    other = FakeOrigin()
    async with node_with_client() as (node, browser):
        await other.greet(node.admin_port)
        for batch in ([2], [5, 6], [4], [1, 3]):
            await other.send(node.admin_port, *batch, after=0)
        assert await numbers(browser, 6) == [1, 2, 3, 4, 5, 6]


async def test_a_receipt_does_not_wait_for_earlier_messages() -> None:
    other = FakeOrigin()
    async with node_with_client() as (node, browser):
        await other.greet(node.admin_port)
        assert await other.send(node.admin_port, 2) == [{"uniqueID": "m2", "matched": 0}]
        assert await other.send(node.admin_port, 1) == [{"uniqueID": "m1", "matched": 1}]
        assert await numbers(browser, 2) == [1, 2]


async def test_a_known_number_is_a_duplicate() -> None:
    other = FakeOrigin()
    async with node_with_client() as (node, browser):
        await other.greet(node.admin_port)
        for _ in range(2):
            receipts = await other.send(node.admin_port, 1, 2, after=0)
        assert [receipt["duplicate"] for receipt in receipts] == [True, True]
        assert await numbers(browser, 2) == [1, 2]
        await is_connected(browser)


async def test_a_message_that_was_published_to_two_nodes_is_delivered_once() -> None:
    other = FakeOrigin()
    async with node_with_client() as (node, browser):
        await other.greet(node.admin_port)
        await node.publish({"subscribers": ["a"], "uniqueID": "m1", "n": 1})
        [receipt] = await other.send(node.admin_port, 1)
        assert receipt["duplicate"] is True
        await other.send(node.admin_port, 2)
        assert await numbers(browser, 2) == [1, 2]


async def test_messages_of_another_instance_may_take_longer_than_others_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One POST has messages of one instance. Its sender announces that it has the others still to send."""
    other = FakeOrigin()
    async with node_with_client() as (node, browser):
        await other.greet(node.admin_port)
        await other.send(node.admin_port, 1, 3, 5, after=0)
        assert await numbers(browser, 1) == [1]
        sequencer = node.node.hub.sequencer
        sequencer.run(time.monotonic() + 2 * HOLD)
        await is_connected(browser)
        await other.send(node.admin_port, 2, 4, after=1, instance="other")
        assert await numbers(browser, 2) == [3, 5]
        sequencer.run(time.monotonic() + 2 * HOLD)
        await is_connected(browser)
    assert warnings(caplog) == []


# Messages that never come


async def test_clients_have_to_resume_when_a_message_never_comes(caplog: pytest.LogCaptureFixture) -> None:
    other = FakeOrigin()
    async with node_with_client() as (node, browser):
        await other.greet(node.admin_port)
        await other.send(node.admin_port, 1)
        assert await numbers(browser, 1) == [1]
        before = (await command(browser, "subscribe", ["b"]))["last"]
        await other.send(node.admin_port, 4)  # it has sent everything up to 3
        await has_to_resume(browser)
        again = await subscribed(node.url(), "a")
        await again.send(f'{{"command": "replay", "data": {{"after": "{before}"}}, "id": 1}}')
        assert await numbers(again, 1) == [4]
        [answer] = await receive(again, 1)
        assert answer["recovered"] is False
        await other.send(node.admin_port, 2, 3, after=3)  # too late
        await other.send(node.admin_port, 5)
        assert await numbers(again, 1) == [5]
    assert len(warnings(caplog)) == 1


async def test_clients_have_to_resume_when_a_node_announces_what_it_never_sends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = FakeOrigin()
    async with node_with_client() as (node, browser):
        await other.greet(node.admin_port)
        await other.greet(node.admin_port, after=2)
        await has_to_resume(browser)
        again = await subscribed(node.url(), "a")
        await other.greet(node.admin_port, after=2)
        await other.send(node.admin_port, 3)
        assert await numbers(again, 1) == [3]
    assert len(warnings(caplog)) == 1


async def test_what_an_older_node_sent_before_the_first_contact_is_no_loss(
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = FakeOrigin()
    async with node_with_client() as (node, browser):
        await other.greet(node.admin_port, after=7)
        await other.send(node.admin_port, 8)
        assert await numbers(browser, 1) == [8]
        node.node.hub.sequencer.run(time.monotonic() + 2 * HOLD)
        await is_connected(browser)
    assert warnings(caplog) == []


async def test_what_a_younger_node_sent_before_the_first_contact_is_lost() -> None:
    other = FakeOrigin(age=0.0)
    async with node_with_client() as (node, browser):
        await other.greet(node.admin_port, after=7)
        await has_to_resume(browser)


async def test_a_node_that_has_been_cut_off_since_its_start_has_lost_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were given up 50 seconds ago."""
    other = FakeOrigin(age=50)
    async with node_with_client() as (node, browser):
        monkeypatch.setattr(node.node.hub.origins, "since", time.monotonic() - 100)
        await other.greet(node.admin_port, after=7)
        await has_to_resume(browser)


async def test_a_node_that_has_been_cut_off_since_its_start_has_lost_nothing_if_nothing_was_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = FakeOrigin(age=200)
    async with node_with_client() as (node, browser):
        monkeypatch.setattr(node.node.hub.origins, "since", time.monotonic() - 100)
        await other.greet(node.admin_port, after=7)
        await other.send(node.admin_port, 8)
        assert await numbers(browser, 1) == [8]
        await is_connected(browser)


async def test_clients_resume_when_only_later_messages_of_a_node_arrive() -> None:
    """Another node brings them; the node that accepted them never sends a request."""
    other = FakeOrigin()
    async with node_with_client() as (node, browser):
        await other.bring(node.admin_port, 8, 9)
        await has_to_resume(browser)


async def test_messages_that_another_node_brings_first_wait_for_those_that_are_still_to_come() -> None:
    other = FakeOrigin()
    async with node_with_client() as (node, browser):
        await other.bring(node.admin_port, 8)
        await other.greet(node.admin_port, after=5)
        await other.send(node.admin_port, 6, 7, 8)
        assert await numbers(browser, 3) == [6, 7, 8]
        await is_connected(browser)


async def test_a_node_that_is_replaced_has_ended_however_its_successor_was_heard_of() -> None:
    before, after = FakeOrigin("former01"), FakeOrigin("latter02", age=0.0)
    async with node_with_client() as (node, browser):
        await before.greet(node.admin_port)
        await after.bring(node.admin_port, 1)
        assert await numbers(browser, 1) == [1]
        answer = await after.greet(node.admin_port)
        assert {
            name: report[3] for name, report in answer["origins"].items() if name in ("former01", "latter02")
        } == {
            "former01": True,
            "latter02": False,
        }
