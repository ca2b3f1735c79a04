"""The client renews its token in time, and requests another one after a refusal."""

import json
import time
from collections.abc import Callable

import pytest

from tests.browser.backend import Backend, listen, token_calls
from tests.browser.cable import Cable
from tests.browser.page import FAST, Page
from tests.support.installation import Installation
from tests.support.tokens import token
from tests.support.waiting import wait_until

NewPage = Callable[[], Page]


@pytest.fixture
def server(strict_server: Installation) -> Installation:
    """A server that requires tokens."""
    return strict_server


def test_a_token_is_renewed_before_it_expires(
    new_page: NewPage, server: Installation, backend: Backend
) -> None:
    backend.seconds = 3.9
    before = server.status()["clients.total"]
    page = listen(new_page(), server, backend, "all")
    page.ready()
    wait_until(lambda: token_calls(page) >= 2, "another token", 15)
    server.publish("all", n=1)
    wait_until(lambda: token_calls(page) >= 3, "yet another token", 15)
    server.publish("all", n=2)
    page.wait_for(1, 2)
    assert page.gaps == 0
    assert "connecting" not in page.tab.evaluate("states")
    assert server.status()["clients.total"] == before + 1


def test_an_expired_token_is_replaced(new_page: NewPage, server: Installation, backend: Backend) -> None:
    backend.seconds = 3.9
    page = listen(new_page(), server, backend, "all")
    page.ready()
    backend.broken = True
    wait_until(lambda: token_calls(page) >= 2, "another token")
    server.publish("all", n=0)
    page.wait_for(0)
    assert page.state == "open", "the first token still holds"
    page.wait_state("connecting")
    backend.broken = False
    server.publish("all", n=1)
    page.wait_for(0, 1)
    page.wait_state("open")
    assert page.gaps == 0


# As LISTEN, with a function that waits until the test settles what it gives.
WAITING = """(url, channels, options) => {
  window.calls = 0;
  const token = () => new Promise((give, refuse) => (calls++, Object.assign(window, { give, refuse })));
  return listen(url, channels, { ...options, token });
}"""


def test_a_subscription_made_while_the_token_is_fetched(
    new_page: NewPage, server: Installation, backend: Backend
) -> None:
    page = new_page()
    page.tab.evaluate(WAITING, server.url, ["all"], {})
    wait_until(lambda: token_calls(page) == 1, "the request for a token")
    page.tab.evaluate("(aphlict.subscribe('more', (message) => got.push(message.n)), 0)")
    page.tab.evaluate(
        "new Promise((done) => setTimeout(() => done(0), 500))"
    )  # what is sent too early is refused
    backend.channels = ["all", "more"]
    page.tab.evaluate("(token) => give(token)", backend.make())
    page.ready()
    for n, channel in enumerate(backend.channels):
        assert server.publish(channel, n=n)["matched"] == 1
    page.wait_for(0, 1)


def test_a_token_set_meanwhile_is_used(new_page: NewPage, server: Installation, network: Cable) -> None:
    page = new_page()
    page.tab.evaluate(WAITING, network.url, ["all"], FAST)
    wait_until(lambda: token_calls(page) == 1, "the request for a token")
    page.tab.evaluate("(token) => (aphlict.token = token, give('an earlier one'), 0)", token("all"))
    page.ready()
    server.publish("all", n=1)
    page.wait_for(1)


# Counts the timers and the commands over WebSockets.
COUNTING = """(() => {
  window.count = 0;
  const { send } = WebSocket.prototype;
  WebSocket.prototype.send = function (data) {
    count++;
    send.call(this, data);
  };
  const later = window.setTimeout;
  window.setTimeout = (...options) => (count++, later(...options));
})()"""


def test_a_token_that_cannot_be_renewed_is_sent_once(
    new_page: NewPage, server: Installation, networks: list[Cable]
) -> None:
    pages = [new_page() for _ in networks]
    for page, network in zip(pages, networks, strict=True):
        page.tab.evaluate(COUNTING)
        # the server accepts it 5 seconds longer than `exp`
        page.listen(network.url, "all", token=token("all", exp=time.time() - 2.5))
    for page in pages:
        page.wait_state("unauthorized", 30)
        assert page.tab.evaluate("count") < 60


def test_a_token_that_arrives_after_disconnect_is_ignored(new_page: NewPage, server: Installation) -> None:
    page = new_page()
    before = server.status()["clients.total"]
    page.tab.evaluate(WAITING, server.url, ["all"], {"minReconnectDelay": 100, "maxReconnectDelay": 100})
    wait_until(lambda: token_calls(page) == 1, "the request for a token")
    page.tab.evaluate("(aphlict.disconnect(), refuse(new Error('too late')), 0)")
    page.tab.evaluate("new Promise((done) => setTimeout(() => done(0), 1000))")
    assert (token_calls(page), page.state) == (1, "disconnected")
    assert server.status()["clients.total"] == before + 1


def test_a_backend_that_is_down_at_a_renewal_loses_no_message(
    new_page: NewPage, server: Installation, backend: Backend
) -> None:
    page = new_page()
    page.tab.evaluate("(window.unhandled = 0, addEventListener('unhandledrejection', () => unhandled++), 0)")
    page.tab.evaluate(WAITING, server.url, ["all"], {"minReconnectDelay": 100, "maxReconnectDelay": 500})
    backend.seconds = 3.9
    wait_until(lambda: token_calls(page) == 1, "the request for a token")
    page.tab.evaluate("(token) => give(token)", backend.make())
    page.ready()
    wait_until(lambda: token_calls(page) == 2, "the request for another token", 15)
    wait_until(
        lambda: (
            page.tab.evaluate("(refuse(new Error('the backend is down')), aphlict.state)") == "connecting"
        ),
        "the end of the token",
        15,
    )
    assert any("the backend is down" in each for each in page.chromium.console("warning"))
    assert page.tab.evaluate("unhandled") == 0
    server.publish("all", n=1)
    backend.seconds = 3600
    page.tab.evaluate("(token) => void setInterval(() => give(token), 100)", backend.make())
    page.wait_for(1)
    assert page.gaps == 0


def test_a_channel_that_a_token_takes_away_comes_back_with_another(
    new_page: NewPage, server: Installation, backend: Backend
) -> None:
    backend.seconds = 3.9
    backend.channels = ["all", "more"]
    page = listen(new_page(), server, backend, "all", "more")
    page.ready()
    backend.channels = ["all"]
    wait_until(lambda: page.gaps == 1, "the gap", 15)
    assert server.publish("more", n=1)["matched"] == 0
    assert any("more" in each for each in page.chromium.console("error"))
    assert page.refusal() == "channel_forbidden"
    backend.channels = ["all", "more"]
    wait_until(lambda: not page.refusal(), "a token that names it", 15)
    assert server.publish("more", n=2)["matched"] == 1
    page.wait_for(2)


def test_tabs_share_the_connection_and_its_token(
    new_page: NewPage, server: Installation, backend: Backend
) -> None:
    pages = [listen(new_page(), server, backend, "all") for _ in range(2)]
    for page in pages:
        page.ready()
    server.publish("all", n=1)
    for page in pages:
        page.wait_for(1)
    assert server.connections == 1
    assert sum(token_calls(page) for page in pages) == 1


def test_the_fallbacks_renew_it_too(new_page: NewPage, server: Installation, backend: Backend) -> None:
    backend.seconds = 2.9
    page = new_page()
    page.tab.evaluate(
        "void (WebSocket = class { constructor() { setTimeout(() => this.onclose({})); } close() {} })"
    )
    listen(page, server, backend, "all")
    page.wait_state("fallback")
    for n in (1, 2):
        before = token_calls(page)
        wait_until(lambda before=before: token_calls(page) > before, "another token", 20)  # type: ignore[misc]
        server.publish("all", n=n)
    page.wait_for(1, 2)
    assert page.gaps == 0


def test_a_token_may_be_a_text(new_page: NewPage, server: Installation) -> None:
    page = new_page().listen(server.url, "all", token=token("all"))
    server.publish("all", n=1)
    page.wait_for(1)
    assert json.loads(page.tab.evaluate("JSON.stringify(states)"))[-1] == "open"
