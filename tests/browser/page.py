"""The page that the tests open, and its web server."""

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
    window.errors = [];
    window.unhandled = 0;
    window.states = [];
    window.subscriptions = {};
    window.aphlict = new Aphlict(url, options);
    aphlict.addEventListener("gap", () => gaps++);
    aphlict.addEventListener("statechange", () => states.push(aphlict.state));
    aphlict.addEventListener("error", ({ code, status, channels }) => errors.push([code, status, ...channels]));
    window.addEventListener("unhandledrejection", () => unhandled++);
    const onMessage = (message) => got.push(message.n);
    for (const channel of channels) {
      subscriptions[channel] = aphlict.subscribe(channel, onMessage);
    }
  };
</script>
"""

# Finds the ID of the page among the holders of locks by a lock of its own.
LEADS = """navigator.locks.request(`test ${Math.random()}`, async ({ name }) => {
  const { held } = await navigator.locks.query();
  const client = held.find((lock) => lock.name == name).clientId;
  return held.some((lock) => lock.clientId == client && /^aphlict [0-9]+ [^ ]+$/.test(lock.name));
})"""

# How the promise of a subscription settles: what it rejects with, or nothing.
SETTLED = """(channel) => subscriptions[channel].ready.then(
  () => [],
  ({ code, status, channels }) => [code, status, ...channels],
)"""

# Short delays, so that a test need not wait for what takes up to a minute by default.
FAST = {
    "minReconnectDelay": 100,
    "maxReconnectDelay": 500,
    "maxRestartDelay": 200,
    "leaderCheckInterval": 400,
    "connectTimeout": 2000,
    "gapJitter": 0,
}


class Page:
    """A tab with the page of the tests. Call `listen` first."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab

    @property
    def chromium(self) -> ChromiumTab:
        """Its tab, for what only Chromium can do."""
        assert isinstance(self.tab, ChromiumTab)
        return self.tab

    def listen(self, url: str, *channels: str, ready: bool = True, **options: object) -> "Page":
        """Subscribe, and wait until the server has acknowledged it."""
        self.tab.evaluate("listen", url, channels, {**FAST, **options})
        if ready:
            self.ready()
        return self

    def ready(self) -> None:
        """Wait until all subscriptions are acknowledged."""
        self.tab.evaluate("aphlict.ready()")

    def refusal(self) -> str:
        """The code of the error with which `ready()` rejects; empty if it resolves."""
        return str(self.tab.evaluate("aphlict.ready().then(() => '', (error) => error.code)"))

    def subscription(self, channel: str) -> Any:
        """The state of a subscription, and the code of its error."""
        script = "({ state, error }) => [state, error?.code]"
        return self.tab.evaluate(f"(channel) => ({script})(subscriptions[channel])", channel)

    @property
    def errors(self) -> list[Any]:
        """The code, status and channels of every `error` event."""
        return list(self.tab.evaluate("errors"))

    @property
    def leads(self) -> bool:
        """Whether it holds the connection for all tabs, according to the locks of the browser."""
        return bool(self.tab.evaluate(LEADS))

    @property
    def got(self) -> list[Any]:
        """The `n` of every message, in order."""
        return list(self.tab.evaluate("got"))

    @property
    def gaps(self) -> int:
        """The number of `gap` events."""
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
        """Wait for messages with these values of `n`, in this order, and no others."""
        try:
            wait_until(lambda: len(self.got) >= len(numbers), "messages", timeout)
        finally:
            assert self.got == list(numbers), f"{self.got} came instead of {list(numbers)}"

    def wait_state(self, state: str, timeout: float = 15) -> None:
        """Wait until the connection has that state."""
        wait_until(lambda: self.state == state, state, timeout)


@contextmanager
def web_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve HTTP at the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds until it stops
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def page_server(script: str) -> Iterator[str]:
    """Serve the page of the tests, which imports aphlict.js from `script`, at the address."""
    body = (PAGE % script).encode()

    class Handler(BaseHTTPRequestHandler):
        """Responds with the page."""

        def do_GET(self) -> None:
            """Respond."""
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    with web_server(Handler) as address:
        yield address
