"""Networks that let no WebSocket through: what a page falls back to, behind real proxies, and how it comes back."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.browser.cable import Cable
from tests.browser.page import Page
from tests.browser.server import Server
from tests.proxies.nginx import nginx
from tests.proxies.programs import free_port
from tests.support.waiting import wait_until

NewPage = Callable[[], Page]
SITE = "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{target}; {more} }} }}"
PLAIN = ""  # what nginx does where nobody told it of WebSockets
BUFFERING = "proxy_ignore_headers X-Accel-Buffering; proxy_buffering on; gzip on;"
UPGRADING = (
    'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
)
HOUR = 3_600_000


class Proxy:
    """An nginx in front of a server, which may change its mind."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._port = free_port()
        self._running = ExitStack()

    @property
    def url(self) -> str:
        """Where browsers connect."""
        return f"ws://127.0.0.1:{self._port}/ws/"

    def run(self, more: str) -> "Proxy":
        """Run with this configuration, and no longer with the last."""
        self.stop()
        site = SITE.format(port=self._port, target=self._server.client_port, more=more)
        self._running.enter_context(nginx(site, self._port))
        return self

    def stop(self) -> None:
        """End it."""
        self._running.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """An nginx that is not running yet."""
    proxy = Proxy(server)
    yield proxy
    proxy.stop()


def test_server_sent_events_where_a_proxy_refuses_upgrades(
    new_page_anywhere: NewPage, server: Server, proxy: Proxy
) -> None:
    proxy.run(PLAIN)
    pages = [new_page_anywhere().listen(proxy.url, "all", f"tab{n}") for n in range(2)]
    for n in range(20):
        server.publish("all", n=n)
    server.publish("tab1", n="second")
    pages[0].wait_for(*range(20))
    pages[1].wait_for(*range(20), "second")
    assert [page.status for page in pages] == ["fallback", "fallback"]
    assert server.connections == 1
    pages[0].tab.close()
    for n in range(20, 40):
        server.publish("all", n=n)
    pages[1].wait_for(*range(20), "second", *range(20, 40))
    assert pages[1].gaps == 0


def test_one_warning_says_why(new_page: NewPage, proxy: Proxy) -> None:
    page = new_page().listen(proxy.run(PLAIN).url, "all")
    page.tab.evaluate("aphlict.subscribe('more')")
    page.ready()
    (warning,) = wait_until(lambda: page.chromium.console("warning"), "the warning")
    assert "Server-Sent Events" in warning
    assert "WebSocket failed" in warning
    assert proxy.url in warning


def test_polling_where_a_proxy_holds_events_back(
    new_page_anywhere: NewPage, server: Server, proxy: Proxy
) -> None:
    page = new_page_anywhere().listen(proxy.run(BUFFERING).url, "all", timeout=1000)
    assert page.status == "fallback"
    for n in range(50):
        server.publish("all", n=n)
    page.wait_for(*range(50))
    page.tab.evaluate("aphlict.subscribe('more', (message) => got.push(message.n))")
    page.ready()
    server.publish("more", n="more")
    page.wait_for(*range(50), "more")
    assert page.gaps == 0


def test_a_warning_names_polling(new_page: NewPage, proxy: Proxy) -> None:
    page = new_page().listen(proxy.run(BUFFERING).url, "all", timeout=1000)
    (warning,) = wait_until(lambda: page.chromium.console("warning"), "the warning")
    assert "polling" in warning


@pytest.mark.parametrize("configuration", [PLAIN, BUFFERING])
def test_nothing_is_missed_while_the_proxy_is_away(
    new_page: NewPage, server: Server, proxy: Proxy, configuration: str
) -> None:
    page = new_page().listen(proxy.run(configuration).url, "all", timeout=1000)
    server.publish("all", n=1)
    page.wait_for(1)
    proxy.stop()
    page.wait_status("connecting")
    server.publish("all", n=2)
    proxy.run(configuration)
    server.publish("all", n=3)
    page.wait_for(1, 2, 3)
    assert page.gaps == 0


@pytest.mark.parametrize("configuration", [PLAIN, BUFFERING])
def test_a_restarted_server_may_have_lost_messages(
    new_page: NewPage, server: Server, proxy: Proxy, configuration: str
) -> None:
    page = new_page().listen(proxy.run(configuration).url, "all", timeout=1000)
    server.publish("all", n=1)
    page.wait_for(1)
    server.stop()
    server.start()
    wait_until(lambda: page.gaps == 1, "the gap")
    page.wait_status("fallback")
    page.ready()
    server.publish("all", n=2)
    page.wait_for(1, 2)


@pytest.mark.parametrize(
    ("upgrade_after", "event"),
    [(300, "0"), (HOUR, "window.dispatchEvent(new Event('online'))")],
    ids=["in time", "when the network is another"],
)
def test_a_websocket_is_tried_again(
    new_page: NewPage, server: Server, cable: Cable, upgrade_after: int, event: str
) -> None:
    cable.refuses_upgrades = True
    page = new_page().listen(cable.url, "all", upgradeAfter=upgrade_after)
    assert page.status == "fallback"
    server.publish("all", n=1)
    page.wait_for(1)
    wait_until(lambda: page.chromium.console("warning"), "the first attempt to be over")
    cable.refuses_upgrades = False
    page.tab.evaluate(event)
    server.publish("all", n=2)
    page.wait_status("open")
    server.publish("all", n=3)
    page.wait_for(1, 2, 3)
    assert page.gaps == 0
    wait_until(lambda: server.connections == 1, "only one connection to be left")


def test_a_server_that_is_down_is_no_reason_to_fall_back(new_page: NewPage, server: Server) -> None:
    page = new_page()
    server.stop()
    page.listen(server.url, "all", ready=False)
    wait_until(lambda: page.tab.evaluate("performance.getEntriesByType('resource').length") > 4, "attempts")
    server.start()
    page.wait_status("open")
    assert page.chromium.console("warning") == []


def test_a_network_that_passes_the_upgrade_on_but_no_frames(
    new_page: NewPage, server: Server, cable: Cable
) -> None:
    cable.swallows_frames = True
    page = new_page().listen(cable.url, "all", ready=False, timeout=1000)
    page.wait_status("fallback")
    page.tab.evaluate(
        "new Promise((done) => setTimeout(() => done(0), 2500))"
    )  # a WebSocket was tried by then
    assert page.tab.evaluate("statuses") == ["fallback"]
    server.publish("all", n=1)
    page.wait_for(1)
    cable.swallows_frames = False
    page.tab.evaluate("window.dispatchEvent(new Event('online'))")
    page.wait_status("open")
