"""Servers restart and networks fail: each message arrives once."""

import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.browser.cable import Cable
from tests.browser.page import Page
from tests.support.installation import Installation, running_server
from tests.support.waiting import wait_until

NewPage = Callable[[], Page]
HOUR = 3_600_000


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restarted_server_causes_a_gap(
    new_page_anywhere: NewPage, server: Installation, how: signal.Signals
) -> None:
    page = new_page_anywhere().listen(server.url, "all")
    server.publish("all", n=1)
    page.wait_for(1)
    server.stop(how)
    page.wait_state("connecting")
    server.start()
    page.wait_state("open")
    server.publish("all", n=2)
    page.wait_for(1, 2)
    assert page.gaps == 1


def test_messages_published_during_a_cut_arrive_after_it(
    new_page_anywhere: NewPage, server: Installation, cable: Cable
) -> None:
    pages = [new_page_anywhere().listen(cable.url, "all", pingInterval=300) for _ in range(2)]
    server.publish("all", n=1)
    for page in pages:
        page.wait_for(1)
    cable.cut()
    for n in range(2, 6):
        server.publish("all", n=n)
    for page in pages:
        page.wait_state("connecting")
    cable.reconnect()
    server.publish("all", n=6)
    for page in pages:
        page.wait_for(1, 2, 3, 4, 5, 6)
        assert page.gaps == 0


def test_nothing_is_missed_if_no_message_came_before_the_cut(
    new_page: NewPage, server: Installation, cable: Cable
) -> None:
    page = new_page().listen(cable.url, "all", pingInterval=300)
    cable.cut()
    server.publish("all", n=1)
    page.wait_state("connecting")
    cable.reconnect()
    page.wait_for(1)
    assert page.gaps == 0


def test_a_short_cut_goes_unnoticed(new_page: NewPage, server: Installation, cable: Cable) -> None:
    page = new_page().listen(cable.url, "all")
    cable.cut()
    server.publish("all", n=1)
    cable.reconnect()
    page.wait_for(1)
    assert page.tab.evaluate("states") == ["open"]
    assert len(cable.begun) == 1


@pytest.mark.parametrize(
    "event",
    ["window.dispatchEvent(new Event('online'))", "document.dispatchEvent(new Event('visibilitychange'))"],
)
def test_online_and_visible_pages_reconnect_without_delay(
    new_page: NewPage, server: Installation, event: str
) -> None:
    page = new_page().listen(server.url, "all", minReconnectDelay=HOUR, maxReconnectDelay=HOUR)
    server.stop(signal.SIGKILL)
    page.wait_state("connecting")
    server.start()
    page.tab.evaluate(event)
    page.wait_state("open")


def test_a_visible_page_detects_a_dead_connection(
    new_page: NewPage, server: Installation, cable: Cable
) -> None:
    leader = new_page().listen(cable.url, "all", pingInterval=HOUR, leaderCheckInterval=HOUR)
    other = new_page().listen(cable.url, "all", pingInterval=HOUR, leaderCheckInterval=HOUR)
    cable.cut()
    look = "document.dispatchEvent(new Event('visibilitychange'))"
    other.tab.evaluate(look)
    other.tab.evaluate(f"new Promise((done) => setTimeout(() => done({look}), 500))")
    other.wait_state("connecting")
    cable.reconnect()
    leader.wait_state("open")
    # The second probe, of a connection that was dead already, must not end the one after it.
    leader.tab.evaluate("new Promise((done) => setTimeout(() => done(0), 1000))")
    assert leader.tab.evaluate("states") == ["open", "connecting", "open"]


def test_a_slow_network_is_not_a_dead_one(new_page: NewPage, server: Installation, cable: Cable) -> None:
    cable.delay = 0.4
    page = new_page().listen(cable.url, "all", pingInterval=2000, connectTimeout=4000)
    page.tab.evaluate(
        """new Promise((done) => {
          const look = setInterval(() => document.dispatchEvent(new Event("visibilitychange")), 200);
          setTimeout(() => done(clearInterval(look)), 3000); // the timeout of each probe is 2 s
        })"""
    )
    server.publish("all", n=1)
    page.wait_for(1)
    assert page.states == ["open"]
    assert len(cable.begun) == 1


@pytest.mark.parametrize(("chance", "gaps"), [(0.0, 1), (0.5, 0)])
def test_a_gap_waits_for_a_random_time(
    new_page: NewPage, server: Installation, chance: float, gaps: int
) -> None:
    pages = [new_page().listen(server.url, "all", minReconnectDelay=0, gapJitter=HOUR) for _ in range(2)]
    for page in pages:
        page.tab.evaluate(f"void (Math.random = () => {chance})")
    server.publish("all", n=1)
    for page in pages:
        page.wait_for(1)
    server.stop()
    server.start()
    for page in pages:
        page.wait_state("open")
        page.ready()
    server.publish("all", n=2)
    for page in pages:
        page.wait_for(1, 2)
        wait_until(lambda page=page: page.gaps == gaps, "the gap")  # type: ignore[misc]


def test_a_restarting_server_is_replaced_without_delay(
    new_page: NewPage, server: Installation, cable: Cable, tmp_path: Path
) -> None:
    page = new_page().listen(cable.url, "all", minReconnectDelay=HOUR, maxReconnectDelay=HOUR)
    (tmp_path / "other").mkdir()
    with running_server(tmp_path / "other") as other:
        cable.target = other.client_port
        server.stop()
        wait_until(lambda: other.connections == 1, "the page to change servers")
        page.wait_state("open")


def test_the_delay_doubles_up_to_a_bound(new_page: NewPage, server: Installation, cable: Cable) -> None:
    cable.target = 1  # where no server listens
    page = new_page()
    page.tab.evaluate("(Math.random = () => 1)")
    page.listen(cable.url, "all", ready=False, minReconnectDelay=100, maxReconnectDelay=400)
    wait_until(
        lambda: len(_attempts(cable)) >= 10,
        "ten attempts; without the bound, the last delays take a minute",
        30,
    )
    waits = [later - sooner for sooner, later in pairwise(_attempts(cable))]
    for wait, expected in zip(waits, [0.1, 0.2, *[0.4] * 7], strict=False):
        assert wait > expected * 0.9, waits
    assert median(waits) < 0.7, waits


def test_clients_reconnect_at_random_times(new_page: NewPage, server: Installation) -> None:
    options: dict[str, Any] = {
        "sharedConnection": False,
        "minReconnectDelay": HOUR,
        "maxReconnectDelay": HOUR,
    }
    pages = [new_page().listen(server.url, "all", **options) for _ in range(2)]
    for page, chance in zip(pages, (0.0001, 1), strict=True):
        page.tab.evaluate(f"void (Math.random = () => {chance})")
    server.stop(signal.SIGKILL)
    for page in pages:
        page.wait_state("connecting")
    server.start()
    pages[0].wait_state("open")
    assert pages[1].state == "connecting"


def _attempts(cable: Cable) -> list[float]:
    """The times of attempts to connect a WebSocket."""
    begun = list(zip(cable.begun, cable.heads, strict=False))
    return [at for at, head in begun if b"upgrade: websocket" in head.lower()]
