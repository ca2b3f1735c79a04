"""What a server refuses: channels and tokens. The page learns it alike on every transport, and the rest goes on."""

import json
import time
from collections.abc import Callable

import pytest

from tests.browser.backend import Backend, asked, listen
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


def wait_settled(page: Page) -> None:
    """Wait until it is connected in one of the ways."""
    wait_until(lambda: page.state in ("open", "fallback"), "a connection")


def test_a_refused_channel_leaves_the_others_alone(
    new_page: NewPage, server: Installation, network: Cable, backend: Backend
) -> None:
    long = "x" * 30
    backend.channels = ["all", "more", long]
    page = listen(new_page(), network, backend, "all", "secret", "more", "hidden", long)
    wait_until(lambda: server.publish("all", n=1)["matched"], "a subscription")
    wait_until(lambda: 1 in page.got, "a message")
    assert "secret" in page.refusal()
    server.publish("more", n=2)
    server.publish("secret", n=3)
    server.publish("all", n=4)
    wait_until(lambda: 4 in page.got, "a later message")
    assert 2 in page.got
    assert 3 not in page.got
    assert len(page.states) == 1, "it is not connected anew"
    errors = page.chromium.console("error")
    assert len(errors) == 2, errors
    assert "secret" in errors[0]
    for channel in ("secret", "hidden"):
        page.tab.evaluate("(channel) => void stops[channel]()", channel)
    assert page.refusal().endswith("…"), "the name that is too long is left"
    page.tab.evaluate("(channel) => void stops[channel]()", long)
    page.ready()


def test_a_channel_that_was_refused_alone_is_no_reason_to_connect_anew(
    new_page: NewPage, server: Installation, network: Cable, backend: Backend
) -> None:
    page = listen(new_page(), network, backend, "secret")
    wait_until(page.refusal, "the refusal")
    page.tab.evaluate("void (aphlict.subscribe('all', (message) => got.push(message.n)), stops.secret())")
    page.ready()
    server.publish("all", n=1)
    page.wait_for(1)
    assert len(page.states) == 1


def test_a_refused_channel_costs_the_others_no_message(
    new_page: NewPage, server: Installation, network: Cable, backend: Backend
) -> None:
    page = listen(new_page(), network, backend, "all", "secret")
    wait_until(page.refusal, "the refusal")
    server.publish("all", n=1)
    page.wait_for(1)
    network.target, port = 1, network.target  # where nobody listens
    network.break_off()
    page.wait_state("connecting")
    server.publish("all", n=2)
    server.publish("all", n=3)
    network.target = port
    page.wait_for(1, 2, 3)
    assert page.gaps == 0


@pytest.mark.parametrize("bad", [None, "bad"])
def test_a_page_without_a_valid_token_stops_until_it_has_one(
    new_page: NewPage, server: Installation, network: Cable, bad: str | None
) -> None:
    page = new_page().listen(network.url, "all", ready=False, **({"token": bad} if bad else {}))
    page.wait_state("unauthorized")
    begun = len(network.begun)
    page.tab.evaluate("new Promise((done) => setTimeout(() => done(0), 1500))")  # several attempts' time
    assert len(network.begun) == begun
    assert page.states == ["unauthorized"]
    assert "token" in page.refusal()
    assert len(page.chromium.console("error")) == 1
    page.tab.evaluate("(token) => void (aphlict.token = token)", token("all"))
    page.ready()
    server.publish("all", n=1)
    page.wait_for(1)


def test_a_page_with_a_token_takes_over_from_one_without(
    new_page: NewPage, server: Installation, network: Cable
) -> None:
    without = new_page().listen(network.url, "all", ready=False)
    without.wait_state("unauthorized")
    page = new_page().listen(network.url, "all", token=token("all"))
    without.ready()
    server.publish("all", n=1)
    for each in (without, page):
        each.wait_for(1)
    assert server.connections <= 1, "none between two polls"


def test_another_token_may_be_set_while_connected(
    new_page: NewPage, server: Installation, network: Cable
) -> None:
    page = new_page().listen(network.url, "all", token=token("all"))
    page.tab.evaluate("void aphlict.subscribe('more', (message) => got.push(message.n))")
    assert "more" in page.refusal()
    page.tab.evaluate("(token) => void (aphlict.token = token)", token("all", "more"))
    wait_until(lambda: not page.refusal(), "the other token to be accepted")
    server.publish("more", n=1)
    page.wait_for(1)
    assert len(page.states) == 1


def test_a_token_that_is_refused_is_requested_again(
    new_page: NewPage, server: Installation, network: Cable, backend: Backend
) -> None:
    backend.broken = True
    page = listen(new_page(), network, backend, "all")
    wait_until(lambda: asked(page) >= 4, "more tokens")
    assert page.state == "connecting"
    backend.broken = False
    wait_settled(page)
    server.publish("all", n=1)
    page.wait_for(1)


def test_a_token_is_requested_once(
    new_page: NewPage, server: Installation, network: Cable, backend: Backend
) -> None:
    page = listen(new_page(), network, backend, "all")
    page.ready()
    for n in range(5):
        server.publish("all", n=n)
        page.wait_for(*range(n + 1))
    assert asked(page) == 1


def test_a_token_is_renewed_and_nothing_is_interrupted(
    new_page: NewPage, server: Installation, network: Cable, backend: Backend
) -> None:
    backend.seconds = 2.9
    page = listen(new_page(), network, backend, "all")
    page.ready()
    for n in range(2):
        wait_until(lambda n=n: asked(page) >= 2 + n, "another token", 30)  # type: ignore[misc]
        server.publish("all", n=n)
    page.wait_for(0, 1)
    assert asked(page) <= 4
    assert len(page.states) == 1
    assert page.gaps == 0


@pytest.mark.parametrize("failure", ["broken", "away"])
def test_a_failed_renewal_is_repeated_while_the_token_is_valid(
    new_page: NewPage, server: Installation, network: Cable, backend: Backend, failure: str
) -> None:
    backend.seconds = 4.9
    page = listen(new_page(), network, backend, "all")
    page.ready()
    setattr(backend, failure, True)
    sent = 0

    def publish_until(condition: Callable[[], bool], what: str) -> None:
        """Polls look at the token after each message."""
        nonlocal sent
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, what
            server.publish("all", n=sent)
            sent += 1
            page.wait_for(*range(sent))

    publish_until(lambda: backend.failures > 0, "a renewal")
    setattr(backend, failure, False)
    publish_until(lambda: asked(page) >= backend.failures + 2, "another attempt")
    publish_until(lambda: asked(page) >= backend.failures + 3, "the renewal of the second token")
    assert len(page.states) == 1, page.states
    assert page.gaps == 0


def test_a_token_may_be_in_the_url(new_page: NewPage, server: Installation, network: Cable) -> None:
    page = new_page()
    url = f"{network.url}?token={token('all')}"
    page.tab.evaluate("(url, options) => listen(url, ['all'], { ...options, token: undefined })", url, FAST)
    page.ready()
    server.publish("all", n=1)
    page.wait_for(1)
    assert not any(b"token=" in head for head in network.heads), "it is not shown in an address"


REFUSED_REPLAY = """void (WebSocket = class extends WebSocket {
  send(text) {
    super.send(text.replace(/"after":\\[.*?\\]/, '"after":{}'));
  }
})"""


def test_a_refused_replay_is_a_gap(new_page: NewPage, server: Installation, cable: Cable) -> None:
    page = new_page()
    page.tab.evaluate(REFUSED_REPLAY)
    page.listen(cable.url, "all", token=token("all"))
    server.publish("all", n=1)
    page.wait_for(1)
    cable.break_off()
    wait_until(lambda: page.gaps == 1, "the gap")
    server.publish("all", n=2)
    page.wait_for(1, 2)
    assert json.loads(page.tab.evaluate("JSON.stringify(states)")) == ["open", "connecting", "open"]
