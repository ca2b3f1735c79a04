"""The page that the tests open, and the web server that it comes from."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.browser.chromium import ChromiumTab
from tests.browser.driving import Tab
from tests.support.waiting import wait_until

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Aphlict</title>
<script type="module">
  import { Aphlict } from "%s";

  window.listen = async (url, channels, options) => {
    window.got = [];
    window.gaps = 0;
    window.states = [];
    window.stops = {};
    window.aphlict = new Aphlict(url, options);
    aphlict.addEventListener("gap", () => gaps++);
    aphlict.addEventListener("statechange", () => states.push(aphlict.state));
    const hear = (message) => got.push(message.n);
    for (const channel of channels) {
      stops[channel] = aphlict.subscribe(channel, hear);
    }
  };
</script>
"""

# A lock of the page's own tells which client it is.
LEADS = """navigator.locks.request(`test ${Math.random()}`, async ({ name }) => {
  const { held } = await navigator.locks.query();
  const client = held.find((lock) => lock.name == name).clientId;
  return held.some((lock) => lock.clientId == client && /^aphlict 1 [^ ]+$/.test(lock.name));
})"""

# Impatient, so that a test need not wait for what takes a user's network a minute.
FAST = {
    "minReconnectDelay": 100,
    "maxReconnectDelay": 500,
    "maxRestartDelay": 200,
    "leaderCheckInterval": 400,
    "connectTimeout": 2000,
    "gapJitter": 0,
}


class Page:
    """A tab with the test's page: `listen` first."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab

    @property
    def chromium(self) -> ChromiumTab:
        """Its tab, where a test needs what only Chromium can do."""
        assert isinstance(self.tab, ChromiumTab)
        return self.tab

    def listen(self, url: str, *channels: str, ready: bool = True, **options: object) -> "Page":
        """Subscribe, and wait until that is in force."""
        self.tab.evaluate("listen", url, channels, {**FAST, **options})
        if ready:
            self.ready()
        return self

    def ready(self) -> None:
        """Wait until all subscriptions are in force."""
        self.tab.evaluate("aphlict.ready()")

    def refusal(self) -> str:
        """Why `ready()` rejects; empty where it does not."""
        return str(self.tab.evaluate("aphlict.ready().then(() => '', (error) => error.message)"))

    @property
    def leads(self) -> bool:
        """Whether it has the connection for all tabs, as the browser's locks tell."""
        return bool(self.tab.evaluate(LEADS))

    @property
    def got(self) -> list[Any]:
        """The `n` of every message, in order."""
        return list(self.tab.evaluate("got"))

    @property
    def gaps(self) -> int:
        """How often it was told that messages may be missing."""
        return int(self.tab.evaluate("gaps"))

    @property
    def states(self) -> list[str]:
        """Every state after the first."""
        return list(self.tab.evaluate("states"))

    @property
    def state(self) -> str:
        """The state of its connection."""
        return str(self.tab.evaluate("aphlict.state"))

    def wait_for(self, *numbers: Any, timeout: float = 15) -> None:
        """Wait until so many messages are here; they must be these, in this order."""
        try:
            wait_until(lambda: len(self.got) >= len(numbers), "messages", timeout)
        finally:
            assert self.got == list(numbers), f"{self.got} came instead of {list(numbers)}"

    def wait_state(self, state: str, timeout: float = 15) -> None:
        """Wait until the connection has that state."""
        wait_until(lambda: self.state == state, state, timeout)


@contextmanager
def web_server(script: str) -> Iterator[str]:
    """Serve the test's page, which takes aphlict.js from `script`; gives the page's address."""
    body = (PAGE % script).encode()

    class Handler(BaseHTTPRequestHandler):
        """Answers with the page."""

        def do_GET(self) -> None:
            """Answer."""
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds until it stops
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()
