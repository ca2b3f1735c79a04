"""Draws the pictures of the console: python -m tests.browser.console_picture docs/images [SECONDS].

Two nodes, publishers and clients run for so long, which fills the charts; five minutes fill them completely. One
client reads nothing, another one has misspelt its channel, and finally the second node is stopped. The pictures show
what the page really shows.
"""

import base64
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from websockets.sync.client import connect

from tests.browser.chromium import Chromium, ChromiumProfile
from tests.browser.console_page import Console, open_console
from tests.browser.palette import with_palette
from tests.proxies.programs import require
from tests.support.browsing import ask
from tests.support.installation import Installation, installed
from tests.support.tokens import key_file, token
from tests.support.waiting import wait_until

SECONDS = 310.0
CLIENTS = 40
TASKS = [f"PHID-TASK-{number}" for number in range(70, 80)]
PEOPLE = ("bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan")
SCREEN = {"width": 1100, "height": 1150, "deviceScaleFactor": 1.25, "mobile": False}
TELEPHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}


class Scene(NamedTuple):
    """Two nodes of a cluster."""

    here: Installation
    other: Installation


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """Run both nodes, which know each other and require tokens."""
    keys = key_file(folder)
    with installed(folder / "a") as here, installed(folder / "b") as other:
        cluster = [
            {"host": "127.0.0.1", "port": node.admin_port, "protocol": "http"} for node in (here, other)
        ]
        for node in (here, other):
            node.write(client={"auth.keys": [keys]}, cluster=cluster)
            node.start()
        yield Scene(here, other)


@contextmanager
def client(node: Installation, subject: str, *channels: str, reads: bool = True) -> Iterator[None]:
    """A client with a token for any channel; without `reads`, one whose network is too slow."""
    with socket.socket() as plug:
        if not reads:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plug.connect(("127.0.0.1", node.client_port))
        queue = None if reads else 1
        with connect(node.url, sock=plug, ping_interval=None, max_queue=queue, close_timeout=0.1) as browser:
            ask(browser, "auth", token("*", sub=subject, exp=time.time() + 3600))
            ask(browser, "subscribe", list(channels))
            yield


def publish_until(end: float, node: Installation) -> None:
    """Publish at rates that vary, sometimes to all."""
    while time.monotonic() < end:
        node.publish(random.choice(["all", *TASKS]), text="x" * random.randint(50, 300))
        time.sleep(random.expovariate(12 + 8 * random.random()))


def run(nodes: Scene, seconds: float, clients: ExitStack) -> None:
    """Connect clients, which stay, and publish for so long."""
    for number in range(CLIENTS):
        channels = ["all", *random.sample(TASKS, 3)]
        clients.enter_context(client(nodes.here, random.choice(PEOPLE), *channels))
        if number % 8 == 0:
            time.sleep(seconds / 30)
    clients.enter_context(client(nodes.here, "mallory", "all", reads=False))
    clients.enter_context(client(nodes.here, "alice", "all", "PHID-TSAK-73"))
    end = time.monotonic() + seconds
    publishers = [threading.Thread(target=publish_until, args=(end, nodes.here)) for _ in range(3)]
    for each in publishers:
        each.start()
    for each in publishers:
        each.join()


def take(console: Console, metrics: Mapping[str, object], scheme: str) -> bytes:
    """The visible part of the page, as PNG."""
    tab = console.chromium
    preferences = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    features = [{"name": name, "value": value} for name, value in preferences.items()]
    tab.command("Emulation.setEmulatedMedia", features=features)
    tab.command("Emulation.setDeviceMetricsOverride", **metrics)
    tab.show()
    tab.evaluate("void scrollTo({ top: 0, behavior: 'instant' })")
    shot = base64.b64decode(tab.command("Page.captureScreenshot", format="png")["data"])
    return with_palette(tab, shot)


def draw(profile: ChromiumProfile, nodes: Scene, seconds: float) -> dict[str, bytes]:
    """Run everything, and return the pictures by name."""
    with ExitStack() as clients:
        console = open_console(profile, nodes.here, host="localhost").wait()
        console.chromium.command("Emulation.setScrollbarsHidden", hidden=True)
        run(nodes, seconds, clients)
        wait_until(lambda: console.level in ("good", "warning"), "a node that works", 30)
        working = take(console, SCREEN, "dark")
        nodes.other.stop()
        wait_until(lambda: console.level == "error", "the verdict", 30)
        id = nodes.here.publish("PHID-TASK-73", text="Anna commented on T73")["uniqueID"]
        console.trace(id=id, user="alice")
        wait_until(lambda: "PHID-TSAK-73" in console.text("trace-result"), "the reason")
        return {
            "console-dark.png": working,
            "console.png": take(console, SCREEN, "light"),
            "console-telephone.png": take(console, TELEPHONE, "dark"),
        }


def main(target: Path, seconds: float) -> None:
    """Draw the pictures into a folder."""
    with TemporaryDirectory() as folder, scene(Path(folder)) as nodes:
        browser = Chromium(require("chromium", "chromium"), Path(folder) / "chromium")
        try:
            for name, picture in draw(browser.new_profile(), nodes, seconds).items():
                (target / name).write_bytes(picture)
        finally:
            browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if sys.argv[2:] else SECONDS)
