"""Fallbacks behind real proxies that block WebSockets, and the way back."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.browser.cable import Cable
from tests.browser.page import Page
from tests.proxies.nginx import nginx
from tests.proxies.programs import free_port
from tests.support.installation import Installation
from tests.support.waiting import wait_until

NewPage = Callable[[], Page]
SITE = "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{target}; {more} }} }}"
PLAIN = ""  # the default of nginx
BUFFERING = "proxy_ignore_headers X-Accel-Buffering; proxy_buffering on; gzip on;"
UPGRADING = (
    'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
)
HOUR = 3_600_000


class Proxy:
    """An nginx in front of a server, with a configuration that can change."""

    def __init__(self, server: Installation) -> None:
        self._server = server
        self._port = free_port()
        self._running = ExitStack()

    @property
    def url(self) -> str:
        """The URL to connect to."""
        return f"ws://127.0.0.1:{self._port}/ws/"

    def run(self, more: str) -> "Proxy":
        """Run with this configuration instead of the last."""
        self.stop()
        site = SITE.format(port=self._port, target=self._server.client_port, more=more)
        self._running.enter_context(nginx(site, self._port))
        return self

    def stop(self) -> None:
        """Stop it."""
        self._running.close()


@pytest.fixture
def proxy(server: Installation) -> Iterator[Proxy]:
    """An nginx that is not running yet."""
    proxy = Proxy(server)
    yield proxy
    proxy.stop()


def test_server_sent_events_if_a_proxy_refuses_upgrades(
    new_page_anywhere: NewPage, server: Installation, proxy: Proxy
) -> None:
    proxy.run(PLAIN)
    pages = [new_page_anywhere().listen(proxy.url, "all", f"tab{n}") for n in range(2)]
    for n in range(20):
        server.publish("all", n=n)
    server.publish("tab1", n="second")
    pages[0].wait_for(*range(20))
    pages[1].wait_for(*range(20), "second")
    assert [page.state for page in pages] == ["fallback", "fallback"]
    assert server.connections == 1
    pages[0].tab.close()
    for n in range(20, 40):
        server.publish("all", n=n)
    pages[1].wait_for(*range(20), "second", *range(20, 40))
    assert pages[1].gaps == 0


def test_one_warning_has_the_reason(new_page: NewPage, proxy: Proxy) -> None:
    page = new_page().listen(proxy.run(PLAIN).url, "all")
    page.tab.evaluate("aphlict.subscribe('more')")
    page.ready()
    (warning,) = wait_until(lambda: page.chromium.console("warning"), "the warning")
    assert "Server-Sent Events" in warning
    assert "WebSocket failed" in warning
    assert proxy.url in warning


def test_polling_if_a_proxy_buffers_events(
    new_page_anywhere: NewPage, server: Installation, proxy: Proxy
) -> None:
    page = new_page_anywhere().listen(proxy.run(BUFFERING).url, "all", connectTimeout=1000)
    assert page.state == "fallback"
    for n in range(50):
        server.publish("all", n=n)
    page.wait_for(*range(50))
    page.tab.evaluate("aphlict.subscribe('more', (message) => got.push(message.n))")
    page.ready()
    server.publish("more", n="more")
    page.wait_for(*range(50), "more")
    assert page.gaps == 0


def test_a_warning_names_polling(new_page: NewPage, proxy: Proxy) -> None:
    page = new_page().listen(proxy.run(BUFFERING).url, "all", connectTimeout=1000)
    (warning,) = wait_until(lambda: page.chromium.console("warning"), "the warning")
    assert "polling" in warning


@pytest.mark.parametrize("configuration", [PLAIN, BUFFERING])
def test_nothing_is_missed_while_the_proxy_is_away(
    new_page: NewPage, server: Installation, proxy: Proxy, configuration: str
) -> None:
    page = new_page().listen(proxy.run(configuration).url, "all", connectTimeout=1000)
    server.publish("all", n=1)
    page.wait_for(1)
    proxy.stop()
    page.wait_state("connecting")
    server.publish("all", n=2)
    proxy.run(configuration)
    server.publish("all", n=3)
    page.wait_for(1, 2, 3)
    assert page.gaps == 0


@pytest.mark.parametrize("configuration", [PLAIN, BUFFERING])
def test_a_restarted_server_may_have_lost_messages(
    new_page: NewPage, server: Installation, proxy: Proxy, configuration: str
) -> None:
    page = new_page().listen(proxy.run(configuration).url, "all", connectTimeout=1000)
    server.publish("all", n=1)
    page.wait_for(1)
    server.stop()
    server.start()
    wait_until(lambda: page.gaps == 1, "the gap")
    page.wait_state("fallback")
    page.ready()
    server.publish("all", n=2)
    page.wait_for(1, 2)


@pytest.mark.parametrize(
    ("retry_interval", "event"),
    [(300, "0"), (HOUR, "window.dispatchEvent(new Event('online'))")],
    ids=["in time", "when the network is another"],
)
def test_a_websocket_is_tried_again(
    new_page: NewPage, server: Installation, cable: Cable, retry_interval: int, event: str
) -> None:
    cable.refuses_upgrades = True
    page = new_page().listen(cable.url, "all", webSocketRetryInterval=retry_interval)
    assert page.state == "fallback"
    server.publish("all", n=1)
    page.wait_for(1)
    wait_until(lambda: page.chromium.console("warning"), "the first attempt to be over")
    wait_until(lambda: len(cable.begun) == len(cable.heads), "every attempt to be over")
    cable.refuses_upgrades = False
    before = upgrades(cable)
    page.tab.evaluate(event)
    server.publish("all", n=2)
    page.wait_state("open")
    server.publish("all", n=3)
    page.wait_for(1, 2, 3)
    assert page.gaps == 0
    wait_until(lambda: server.connections == 1, "only one connection to be left")
    server.publish("all", n=4)
    page.wait_for(1, 2, 3, 4)
    assert upgrades(cable) <= before + 1, "the WebSocket that was tried is the one that is used"


def upgrades(cable: Cable) -> int:
    """The number of attempts to connect a WebSocket."""
    return sum(b"upgrade: websocket" in head.lower() for head in cable.heads)


LOOK = "void document.dispatchEvent(new Event('visibilitychange'))"


def test_no_request_is_repeated_if_nothing_changed(
    new_page: NewPage, server: Installation, network: Cable
) -> None:
    pages = [new_page().listen(network.url, "all", "more") for _ in range(2)]
    before = server.status()["clients.total"]
    for page in pages:
        for _ in range(3):
            page.tab.evaluate("void aphlict.subscribe('more')")
            page.tab.evaluate(LOOK)
    server.publish("all", n=1)
    for page in pages:
        page.wait_for(1)
    after_message = 1 if network.refuses_streams else 0  # the next poll
    assert server.status()["clients.total"] <= before + after_message
    assert server.connections == 1


def test_a_channel_of_another_tab_is_ready_immediately(
    new_page: NewPage, server: Installation, network: Cable
) -> None:
    leader = new_page().listen(network.url, "all", leaderCheckInterval=HOUR)
    new_page().listen(network.url, "more", leaderCheckInterval=HOUR)
    leader.tab.evaluate("void aphlict.subscribe('more', (message) => got.push(message.n))")
    late = "new Promise((done) => setTimeout(() => done(false), 5000))"
    assert leader.tab.evaluate(f"Promise.race([aphlict.ready().then(() => true), {late}])")
    server.publish("more", n=1)
    leader.wait_for(1)


def test_a_visible_page_repeats_a_request_after_its_deadline(
    new_page: NewPage, server: Installation, cable: Cable
) -> None:
    """As after a sleep of the device, during which timers stop."""
    cable.refuses_upgrades = True
    page = new_page().listen(cable.url, "all")
    before = server.status()["clients.total"]
    page.tab.evaluate("(() => { const { now } = Date; Date.now = () => now() + 3_600_000; })()")
    page.tab.evaluate(LOOK)
    wait_until(lambda: server.status()["clients.total"] == before + 1, "another request")
    page.ready()
    server.publish("all", n=1)
    page.wait_for(1)
    assert page.states == ["fallback"]


SECURITY_ERROR = """void (WebSocket = class {
  constructor() {
    throw new DOMException("An insecure WebSocket connection may not be initiated", "SecurityError");
  }
})"""


def test_a_websocket_that_cannot_be_made_is_reported_immediately(
    new_page: NewPage, server: Installation
) -> None:
    page = new_page()
    page.tab.evaluate(SECURITY_ERROR)
    page.listen(server.url, "all", ready=False, connectTimeout=HOUR)
    (error,) = wait_until(lambda: page.chromium.console("error"), "the error")
    assert "SecurityError" in error
    page.wait_state("fallback")
    server.publish("all", n=1)
    page.wait_for(1)


def test_a_server_that_is_down_is_no_reason_to_fall_back(new_page: NewPage, server: Installation) -> None:
    page = new_page()
    server.stop()
    page.listen(server.url, "all", ready=False)
    wait_until(lambda: page.tab.evaluate("performance.getEntriesByType('resource').length") > 4, "attempts")
    server.start()
    page.wait_state("open")
    assert page.chromium.console("warning") == []


def test_a_network_that_passes_the_upgrade_on_but_no_frames(
    new_page: NewPage, server: Installation, cable: Cable
) -> None:
    cable.swallows_frames = True
    page = new_page().listen(cable.url, "all", ready=False, connectTimeout=1000)
    page.wait_state("fallback")
    (warning,) = wait_until(lambda: page.chromium.console("warning"), "the end of another attempt")
    assert "WebSocket failed" in warning
    assert page.tab.evaluate("states") == ["fallback"]
    server.publish("all", n=1)
    page.wait_for(1)
    cable.swallows_frames = False
    page.tab.evaluate("window.dispatchEvent(new Event('online'))")
    page.wait_state("open")
