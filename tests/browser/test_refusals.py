"""The server refuses channels and tokens, with the same result on every transport."""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import product

import pytest

from tests.browser.backend import Backend, listen, running_backend, token_calls
from tests.browser.cable import Cable
from tests.browser.page import FAST, SETTLED, Page
from tests.support.installation import Installation
from tests.support.tokens import token
from tests.support.waiting import wait_until

NewPage = Callable[[], Page]


@pytest.fixture
def server(strict_server: Installation) -> Installation:
    """A server that requires tokens."""
    return strict_server


def wait_settled(page: Page) -> None:
    """Wait until it is connected by any transport."""
    wait_until(lambda: page.state in ("open", "fallback"), "a connection")


def test_a_refused_channel_does_not_affect_others(
    new_page: NewPage, server: Installation, network: Cable, backend: Backend
) -> None:
    long = "x" * 30
    backend.channels = ["all", "more", long]
    page = listen(new_page(), network, backend, "all", "secret", "more", "hidden", long)
    wait_until(lambda: server.publish("all", n=1)["matched"], "a subscription")
    wait_until(lambda: 1 in page.got, "a message")
    assert page.refusal() == "channel_forbidden"
    server.publish("more", n=2)
    server.publish("secret", n=3)
    server.publish("all", n=4)
    wait_until(lambda: 4 in page.got, "a later message")
    assert 2 in page.got
    assert 3 not in page.got
    assert len(page.states) == 1, "it does not reconnect"
    errors = page.chromium.console("error")
    assert len(errors) == 2, errors
    assert "secret" in errors[0]
    for channel in ("secret", "hidden"):
        page.tab.evaluate("(channel) => void subscriptions[channel]()", channel)
    assert page.refusal() == "name_too_long"
    page.tab.evaluate("(channel) => void subscriptions[channel]()", long)
    page.ready()


def test_the_only_channel_refused_is_no_reason_to_reconnect(
    new_page: NewPage, server: Installation, network: Cable, backend: Backend
) -> None:
    page = listen(new_page(), network, backend, "secret")
    wait_until(page.refusal, "the refusal")
    page.tab.evaluate(
        "void (aphlict.subscribe('all', (message) => got.push(message.n)), subscriptions.secret())"
    )
    page.ready()
    server.publish("all", n=1)
    page.wait_for(1)
    assert len(page.states) == 1


def test_a_refused_channel_does_not_lose_messages_of_others(
    new_page: NewPage, server: Installation, network: Cable, backend: Backend
) -> None:
    page = listen(new_page(), network, backend, "all", "secret")
    wait_until(page.refusal, "the refusal")
    server.publish("all", n=1)
    page.wait_for(1)
    network.target, port = 1, network.target  # where no server listens
    network.close_connections()
    page.wait_state("connecting")
    server.publish("all", n=2)
    server.publish("all", n=3)
    network.target = port
    page.wait_for(1, 2, 3)
    assert page.gaps == 0


# Errors as an older server sends them.
WITHOUT_CODES = """(() => {
  const strip = ({ code, ...rest }) => rest;
  const { json } = Response.prototype;
  Response.prototype.json = async function () {
    return strip(await json.call(this));
  };
  const { parse } = JSON;
  JSON.parse = (text) => strip(parse(text));
})()"""


@pytest.mark.parametrize("script", ["0", WITHOUT_CODES], ids=["codes", "no codes"])
def test_a_refused_subscription_has_the_error(
    new_page: NewPage, server: Installation, network: Cable, script: str
) -> None:
    page = new_page()
    page.tab.evaluate(f"(({script}), 0)")
    page.listen(network.url, "all", "secret", ready=False, token=token("all"))
    assert page.tab.evaluate(SETTLED, "secret") == ["channel_forbidden", 403, "secret"]
    assert page.tab.evaluate(SETTLED, "all") == []
    assert page.subscription("secret") == ["refused", "channel_forbidden"]
    assert page.subscription("all") == ["subscribed", None]
    assert page.errors == [["channel_forbidden", 403, "secret"]]
    page.tab.evaluate(
        "(token) => (window.before = subscriptions.secret.ready, aphlict.token = token)", token("secret")
    )
    wait_until(lambda: page.subscription("secret") == ["subscribed", None], "the other token")
    assert page.tab.evaluate(SETTLED, "secret") == []
    assert page.tab.evaluate("before.catch((error) => [error.name, error instanceof Error])") == [
        "AphlictError",
        True,
    ]
    assert page.tab.evaluate("unhandled") == 0


def test_every_tab_has_the_errors_of_its_channels(
    new_page: NewPage, server: Installation, network: Cable
) -> None:
    leader = new_page().listen(network.url, "all", "secret", ready=False, token=token("all"))
    assert leader.refusal() == "channel_forbidden"
    other = new_page().listen(network.url, "all", token=token("all"))
    assert other.errors == []
    other.tab.evaluate("void (subscriptions.secret = aphlict.subscribe('secret'))")
    assert other.tab.evaluate(SETTLED, "secret") == ["channel_forbidden", 403, "secret"]
    assert other.errors == leader.errors == [["channel_forbidden", 403, "secret"]]
    begun = len(network.begun)
    network.close_connections()
    wait_until(lambda: len(network.begun) > begun, "another connection")
    server.publish("all", n=1)
    other.wait_for(1)
    wait_until(lambda: other.subscription("secret") == ["refused", "channel_forbidden"], "the same refusal")
    assert len(other.errors) == 1, "the page has received it before"


FAILING = """(url, options) => {
  window.calls = 0;
  const token = () => {
    calls++;
    throw new Error("the backend is down");
  };
  return listen(url, ["all"], { ...options, token });
}"""


def test_a_function_that_returns_no_token_is_an_error(
    new_page: NewPage, server: Installation, network: Cable
) -> None:
    page = new_page()
    page.tab.evaluate(FAILING, network.url, FAST)
    wait_until(lambda: page.tab.evaluate("calls") >= 3, "more attempts")
    assert page.errors == [["token_unavailable", 0]]
    assert page.state == "connecting"


@pytest.mark.parametrize("bad", [None, "bad"])
def test_a_page_without_a_valid_token_stops_until_it_has_one(
    new_page: NewPage, server: Installation, network: Cable, bad: str | None
) -> None:
    page = new_page()
    page.tab.evaluate("(Math.random = () => 0, 0)")  # a reconnect has no delay
    page.listen(network.url, "all", ready=False, **({"token": bad} if bad else {}))
    page.wait_state("unauthorized")
    begun = len(network.begun)
    page.tab.evaluate("new Promise((done) => setTimeout(() => done(0), 300))")
    assert len(network.begun) == begun
    assert page.states == ["unauthorized"]
    code = "token_invalid" if bad else "token_missing"
    assert page.refusal() == code
    assert page.subscription("all") == ["refused", code]
    assert page.errors == [[code, 401]]
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
    assert page.refusal() == "channel_forbidden"
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
    wait_until(lambda: token_calls(page) >= 4, "more tokens")
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
    assert token_calls(page) == 1


def test_a_token_is_renewed_and_nothing_is_interrupted(
    new_page: NewPage, server: Installation, networks: list[Cable], backend: Backend
) -> None:
    backend.seconds = 2.9
    begun = time.monotonic()
    pages = [listen(new_page(), network, backend, "all") for network in networks]
    for page in pages:
        page.ready()
    for n in range(2):
        for page in pages:
            wait_until(lambda n=n, page=page: token_calls(page) >= 2 + n, "another token", 30)  # type: ignore[misc]
        server.publish("all", n=n)
    for page in pages:
        page.wait_for(0, 1)
        assert token_calls(page) <= 2 + (time.monotonic() - begun) / 1.2, "once after 3/5 of each lifetime"
        assert len(page.states) == 1
        assert page.gaps == 0


def test_a_failed_renewal_is_repeated_while_the_token_is_valid(
    new_page: NewPage, server: Installation, networks: list[Cable]
) -> None:
    with ExitStack() as backends:
        failing: list[tuple[Page, Backend]] = []
        cases = list(product(networks, ["broken", "down"]))
        pages = [new_page() for _ in cases]  # before a token begins to expire
        for page, (network, failure) in zip(pages, cases, strict=True):
            backend = backends.enter_context(running_backend())
            backend.seconds = 9.9
            backend.recovers = True
            # Pages that share no connection, each with its own backend
            listen(page, network, backend, "all", sharedConnection=False).ready()
            setattr(backend, failure, True)
            failing.append((page, backend))
        sent = 0

        def publish_until(condition: Callable[[Page, Backend], bool], what: str) -> None:
            """Publish until then: a poll renews its token after each message."""
            nonlocal sent
            deadline = time.monotonic() + 30
            pending = list(failing)
            while pending := [each for each in pending if not condition(*each)]:
                assert time.monotonic() < deadline, what
                server.publish("all", n=sent)
                sent += 1
                for page, _ in failing:
                    page.wait_for(*range(sent))

        publish_until(lambda _page, backend: backend.failures > 0, "a renewal")
        publish_until(lambda page, backend: token_calls(page) >= backend.failures + 2, "another attempt")
        publish_until(lambda page, backend: token_calls(page) >= backend.failures + 3, "the second renewal")
        for page, _ in failing:
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
    cable.close_connections()
    wait_until(lambda: page.gaps == 1, "the gap")
    server.publish("all", n=2)
    page.wait_for(1, 2)
    assert json.loads(page.tab.evaluate("JSON.stringify(states)")) == ["open", "connecting", "open"]
