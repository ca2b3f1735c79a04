"""Subscriptions have a state, and errors have codes, the same on every transport and in every tab."""

from collections.abc import Callable
from pathlib import Path
from socket import create_connection, socket

import pytest

from tests.browser.cable import Cable
from tests.browser.chromium import ChromiumProfile
from tests.browser.page import FAST, SETTLED, Page
from tests.support.installation import Installation, running_server
from tests.support.tokens import token
from tests.support.waiting import wait_until

NewPage = Callable[[], Page]
HOUR = 3_600_000


def test_a_subscription_is_pending_subscribed_and_closed(
    new_page: NewPage, server: Installation, network: Cable
) -> None:
    page = new_page()
    network.cut()
    page.listen(network.url, "all", ready=False, connectTimeout=HOUR)
    assert page.subscription("all") == ["pending", None]
    network.reconnect()
    assert page.tab.evaluate(SETTLED, "all") == []
    assert page.subscription("all") == ["subscribed", None]
    server.publish("all", n=1)
    page.wait_for(1)
    page.tab.evaluate("subscriptions.all.unsubscribe()")
    assert page.subscription("all") == ["closed", None]
    wait_until(lambda: not server.publish("all", n=2)["matched"], "the channel to be unsubscribed")
    assert page.got == [1]
    assert page.errors == []


def test_a_subscription_may_have_several_channels(new_page: NewPage, strict_server: Installation) -> None:
    page = new_page().listen(strict_server.url, token=token("a", "b"))
    page.tab.evaluate("void (window.both = aphlict.subscribe(['a', 'b'], (message) => got.push(message.n)))")
    page.tab.evaluate("both.ready")
    assert strict_server.publish("a", "b", n=1)["matched"] == 1
    strict_server.publish("b", n=2)
    page.wait_for(1, 2)
    page.tab.evaluate("void (subscriptions.mixed = aphlict.subscribe(['a', 'c', 'd']))")
    assert page.tab.evaluate(SETTLED, "mixed") == ["channel_forbidden", 403, "c", "d"]
    page.tab.evaluate("both()")
    wait_until(lambda: not strict_server.publish("b")["matched"], "one channel to be unsubscribed")
    assert strict_server.publish("a", n=3)["matched"] == 1, "the other subscription has this channel"


def test_a_subscription_that_ends_before_it_is_ready_rejects(new_page: NewPage, server: Installation) -> None:
    page = new_page()
    server.stop()
    page.listen(server.url, "all", "more", ready=False)
    for script in ("subscriptions.all()", "aphlict.disconnect()"):
        page.tab.evaluate(f"void (subscriptions.all.ready, subscriptions.more.ready, {script})")
    assert page.tab.evaluate(SETTLED, "all") == ["unsubscribed", 0]
    assert page.tab.evaluate(SETTLED, "more") == ["disconnected", 0]
    assert page.refusal() == "disconnected"
    assert page.tab.evaluate("unhandled") == 0


@pytest.mark.parametrize("shared", [True, False])
def test_a_page_disconnects_and_connects_again(
    new_page: NewPage, server: Installation, network: Cable, *, shared: bool
) -> None:
    page = new_page().listen(network.url, "all", sharedConnection=shared)
    server.publish("all", n=1)
    page.wait_for(1)
    page.tab.evaluate("aphlict.disconnect()")
    assert page.state == "disconnected"
    assert page.subscription("all") == ["pending", None]
    wait_until(lambda: not server.connections, "the connection to end")
    server.publish("all", n=2)
    page.tab.evaluate("(aphlict.disconnect(), aphlict.connect(), aphlict.connect())")
    page.ready()
    server.publish("all", n=3)
    page.wait_for(*([1, 3] if shared else [1, 2, 3]))
    assert page.gaps == (1 if shared else 0)
    wait_until(lambda: server.connections == 1, "one connection")


def test_other_tabs_stay_connected(new_page: NewPage, server: Installation) -> None:
    leader, other = [new_page().listen(server.url, "all") for _ in range(2)]
    leader.tab.evaluate("aphlict.disconnect()")
    wait_until(lambda: other.leads, "the other tab to lead")
    server.publish("all", n=1)
    other.wait_for(1)
    assert (leader.got, other.gaps) == ([], 0)


def test_connect_does_not_wait_for_the_timer(new_page: NewPage, server: Installation) -> None:
    page = new_page().listen(server.url, "all", minReconnectDelay=HOUR, maxReconnectDelay=HOUR)
    server.stop()
    page.wait_state("connecting")
    page.tab.evaluate("(Math.random = () => 1, 0)")
    server.start()
    page.tab.evaluate("aphlict.connect()")
    page.wait_state("open")


def open_stream(server: Installation) -> socket | None:
    """An event stream, or None if the server refuses the connection."""
    stream = create_connection(("127.0.0.1", server.client_port))
    stream.sendall(b"GET /events?channel=all HTTP/1.1\r\nHost: localhost\r\n\r\n")
    if stream.recv(65536).startswith(b"HTTP/1.1 200"):
        return stream
    stream.close()
    return None


def test_a_refused_connection_is_an_error_where_the_page_may_read_it(
    profile: ChromiumProfile, tmp_path: Path
) -> None:
    """A page of the same origin may read every response, though not why a WebSocket failed."""
    with running_server(tmp_path, connections=1, handshake=1) as server:
        tab = profile.new_tab(f"http://127.0.0.1:{server.client_port}/aphlict.js")
        tab.evaluate("import('/aphlict.js').then(({ Aphlict }) => void (window.Aphlict = Aphlict))")
        stream = wait_until(lambda: open_stream(server), "the browser to close its idle connection")
        assert stream
        with stream:
            tab.evaluate(
                """(options) => {
                  window.aphlict = new Aphlict("/", options);
                  window.errors = [];
                  aphlict.addEventListener("error", ({ code, status }) => errors.push([code, status]));
                  aphlict.subscribe("all");
                }""",
                FAST,
            )
            wait_until(lambda: tab.evaluate("errors"), "the error")
        wait_until(lambda: tab.evaluate("['open', 'fallback'].includes(aphlict.state)"), "a connection")
        assert tab.evaluate("errors") == [["too_many_connections", 503]]
