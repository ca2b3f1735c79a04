"""The backend of a page, which makes tokens, and a page that uses them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.browser.cable import Cable
from tests.browser.page import FAST, Page, web_server
from tests.support.installation import Installation
from tests.support.tokens import token

# As Page.listen, with a function as the option `token`.
LISTEN = """(url, channels, options, backend) => {
  window.calls = 0;
  const token = async () => {
    calls++;
    const answer = await fetch(backend);
    if (!answer.ok) {
      throw new Error("the backend is down");
    }
    return answer.text();
  };
  return listen(url, channels, { ...options, token });
}"""


class Backend:
    """A backend that makes tokens for `channels` (at first: "all") that are valid for `seconds`.

    While it is `broken`, it makes invalid tokens; while it is `down`, it makes none. With `recovers`, the first such
    failure is the last. `failures` counts them.
    """

    def __init__(self) -> None:
        self.seconds = 3600.0
        self.channels = ["all"]
        self.broken = False
        self.down = False
        self.recovers = False
        self.failures = 0
        self.url = ""

    def make(self) -> str:
        """Make a token. The server accepts it 5 seconds longer than `exp`, and reports whole seconds to clients."""
        return "broken" if self.broken else token(*self.channels, exp=time.time() - 5 + self.seconds)

    def respond(self) -> tuple[int, str]:
        """Return the status and the body of a response."""
        response = (503, "") if self.down else (200, self.make())
        if self.down or self.broken:
            self.failures += 1
            self.down = self.down and not self.recovers
            self.broken = self.broken and not self.recovers
        return response


@contextmanager
def running_backend() -> Iterator[Backend]:
    """A backend that serves tokens at its `url`."""
    backend = Backend()

    class Handler(BaseHTTPRequestHandler):
        """Responds with a token."""

        def do_GET(self) -> None:
            """Respond."""
            status, text = backend.respond()
            self.send_response(status)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    with web_server(Handler) as address:
        backend.url = address
        yield backend


def listen(
    page: Page, server: Installation | Cable, backend: Backend, *channels: str, **options: object
) -> Page:
    """Subscribe, with a token of the backend."""
    page.tab.evaluate(LISTEN, server.url, channels, {**FAST, **options}, backend.url)
    return page


def token_calls(page: Page) -> int:
    """How often the client has called the page's function for a token."""
    return int(page.tab.evaluate("calls"))
