"""A page that shows tokens: they are renewed in time, and fetched anew where one was refused."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser.page import Page
from tests.browser.server import Server, running_server
from tests.support.tokens import key_file, token
from tests.support.waiting import wait_until

NewPage = Callable[[], Page]

# As Page.listen, with a token option that JSON has no word for.
LISTEN = """(url, channels, options, backend) => {
  window.asked = 0;
  const token = async () => {
    asked++;
    return (await fetch(backend)).text();
  };
  return listen(url, channels, { ...options, token });
}"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that asks for tokens."""
    with running_server(tmp_path, client={"auth.keys": [key_file(tmp_path)]}) as server:
        yield server


class Backend:
    """A page's backend, which makes tokens: for the channel "all", good for so many seconds."""

    def __init__(self) -> None:
        self.seconds = 3600.0
        self.channels = ["all"]
        self.broken = False
        self.url = ""

    def make(self) -> str:
        """Make one; the server takes it 5 seconds longer than it says."""
        return "broken" if self.broken else token(*self.channels, exp=time.time() - 5 + self.seconds)


@pytest.fixture
def backend() -> Iterator[Backend]:
    """The backend, at an address of its own."""
    backend = Backend()

    class Handler(BaseHTTPRequestHandler):
        """Answers with a token."""

        def do_GET(self) -> None:
            """Answer."""
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()
            self.wfile.write(backend.make().encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    backend.url = f"http://127.0.0.1:{server.server_port}/"
    yield backend
    server.shutdown()
    thread.join()
    server.server_close()


def listen(page: Page, server: Server, backend: Backend, *channels: str, **options: object) -> Page:
    fast = {"minDelay": 100, "maxDelay": 500, "patience": 400, "timeout": 2000, **options}
    page.tab.evaluate(LISTEN, server.url, channels, fast, backend.url)
    return page


def asked(page: Page) -> int:
    return int(page.tab.evaluate("asked"))


def test_a_token_is_renewed_before_it_expires(new_page: NewPage, server: Server, backend: Backend) -> None:
    backend.seconds = 8
    page = listen(new_page(), server, backend, "all")
    page.ready()
    wait_until(lambda: asked(page) >= 2, "another token", 15)
    server.publish("all", n=1)
    wait_until(lambda: asked(page) >= 3, "yet another token", 15)
    server.publish("all", n=2)
    page.wait_for(1, 2)
    assert page.gaps == 0
    assert "connecting" not in page.tab.evaluate("statuses")
    assert server.status()["clients.total"] == 1


def test_after_a_token_that_expired_comes_a_fresh_one(
    new_page: NewPage, server: Server, backend: Backend
) -> None:
    backend.seconds = 5
    page = listen(new_page(), server, backend, "all")
    page.ready()
    backend.broken = True
    wait_until(lambda: asked(page) == 2, "another token")
    server.publish("all", n=0)
    page.wait_for(0)
    assert page.status == "open", "the first token still holds"
    page.wait_status("connecting")
    backend.broken = False
    server.publish("all", n=1)
    page.wait_for(0, 1)
    page.wait_status("open")
    assert page.gaps == 0


def test_a_token_that_is_refused_is_asked_for_again(
    new_page: NewPage, server: Server, backend: Backend
) -> None:
    backend.broken = True
    page = listen(new_page(), server, backend, "all")
    wait_until(lambda: asked(page) >= 4, "more tokens")
    assert page.status == "connecting"
    backend.broken = False
    page.wait_status("open")
    server.publish("all", n=1)
    page.wait_for(1)


def test_a_channel_that_is_not_allowed_does_not_take_others_along(
    new_page: NewPage, server: Server, backend: Backend
) -> None:
    page = listen(new_page(), server, backend, "all", "secret")
    wait_until(lambda: server.publish("all", n=1)["matched"], "a subscription")
    wait_until(lambda: 1 in page.got, "a message")
    assert server.publish("secret", n=2)["matched"] == 0


def test_tabs_share_the_connection_and_its_token(new_page: NewPage, server: Server, backend: Backend) -> None:
    pages = [listen(new_page(), server, backend, "all") for _ in range(2)]
    for page in pages:
        page.ready()
    server.publish("all", n=1)
    for page in pages:
        page.wait_for(1)
    assert server.connections == 1
    assert sum(asked(page) for page in pages) == 1


def test_the_fallbacks_show_it_too(new_page: NewPage, server: Server, backend: Backend) -> None:
    backend.seconds = 3
    page = new_page()
    page.tab.evaluate(
        "void (WebSocket = class { constructor() { setTimeout(() => this.onclose({})); } close() {} })"
    )
    listen(page, server, backend, "all")
    page.wait_status("fallback")
    for n in (1, 2):
        before = asked(page)
        wait_until(lambda before=before: asked(page) > before, "another token", 20)  # type: ignore[misc]
        server.publish("all", n=n)
    page.wait_for(1, 2)
    assert page.gaps == 0


def test_a_token_may_be_a_text(new_page: NewPage, server: Server) -> None:
    page = new_page().listen(server.url, "all", token=token("all"))
    server.publish("all", n=1)
    page.wait_for(1)
    assert json.loads(page.tab.evaluate("JSON.stringify(statuses)"))[-1] == "open"
