"""A page's backend, which makes tokens, and a page that shows them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.browser.cable import Cable
from tests.browser.page import Page
from tests.support.installation import Installation
from tests.support.tokens import token

# As Page.listen, with a token option that JSON has no word for.
LISTEN = """(url, channels, options, backend) => {
  window.asked = 0;
  const token = async () => {
    asked++;
    const answer = await fetch(backend);
    if (!answer.ok) {
      throw new Error("the backend is away");
    }
    return answer.text();
  };
  return listen(url, channels, { ...options, token });
}"""


class Backend:
    """A page's backend, which makes tokens: for the channel "all", good for so many seconds."""

    def __init__(self) -> None:
        self.seconds = 3600.0
        self.channels = ["all"]
        self.broken = False
        self.away = False
        self.failures = 0  # answers while it was broken or away
        self.url = ""

    def make(self) -> str:
        """Make one; the server accepts it 5 seconds longer than it says, and tells clients whole seconds."""
        return "broken" if self.broken else token(*self.channels, exp=time.time() - 5 + self.seconds)


@contextmanager
def running_backend() -> Iterator[Backend]:
    """A backend at an address of its own, while the block lasts."""
    backend = Backend()

    class Handler(BaseHTTPRequestHandler):
        """Answers with a token."""

        def do_GET(self) -> None:
            """Answer."""
            self.send_response(503 if backend.away else 200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()
            backend.failures += backend.away or backend.broken
            self.wfile.write(backend.make().encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds until it stops
    thread.start()
    backend.url = f"http://127.0.0.1:{server.server_port}/"
    yield backend
    server.shutdown()
    thread.join()
    server.server_close()


def listen(
    page: Page, server: Installation | Cable, backend: Backend, *channels: str, **options: object
) -> Page:
    """Subscribe with a token of the backend."""
    fast = {
        "minReconnectDelay": 100,
        "maxReconnectDelay": 500,
        "leaderCheckInterval": 400,
        "connectTimeout": 2000,
        "gapJitter": 0,
        **options,
    }
    page.tab.evaluate(LISTEN, server.url, channels, fast, backend.url)
    return page


def asked(page: Page) -> int:
    """How often the page was asked for a token."""
    return int(page.tab.evaluate("asked"))
