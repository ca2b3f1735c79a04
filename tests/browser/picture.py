"""Draws docs/images/two-tabs.png: python -m tests.browser.picture docs/images/two-tabs.png.

A message that `curl` publishes arrives in two tabs of a real Chromium. The command, its output and both pages are
what the programs really show; only the frames around them are drawn.
"""

import base64
import html
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.browser.chromium import Chromium, ChromiumProfile, ChromiumTab
from tests.docs.pages import ROOT
from tests.proxies.programs import require
from tests.support.installation import Installation, running_server
from tests.support.waiting import wait_until

TAB = {"width": 480, "height": 300, "deviceScaleFactor": 2, "mobile": False}
SHEET = {"width": 1040, "height": 526, "deviceScaleFactor": 2, "mobile": False}
TEXTS = ("Build 1841 passed", "Anna commented on T73")
SHOWN = "[...document.querySelectorAll('#messages li')].map((item) => item.textContent)"
KEEP_LAST = (
    "(n) => [...document.querySelectorAll('#messages li')].slice(0, -n).forEach((item) => item.remove())"
)
STYLE = """
  body { margin: 0; padding: 20px; box-sizing: border-box; width: 1040px; background: #e8ecf1 }
  .terminal { background: #1d232c; color: #dbe4ee; border-radius: 8px; padding: 14px 18px;
              font: 14px/1.5 "DejaVu Sans Mono", monospace; white-space: pre-wrap; overflow: hidden }
  .prompt { color: #7ee0a1 }
  .tabs { display: flex; gap: 20px; margin-top: 20px }
  .tab { width: 490px; border-radius: 8px; overflow: hidden; background: #cfd6de; box-shadow: 0 2px 8px #0003 }
  .bar { font: 13px/1.5 "DejaVu Sans", sans-serif; color: #39434f; padding: 7px 12px 6px }
  img { display: block; width: 490px }
"""


def screenshot(tab: ChromiumTab, metrics: Mapping[str, object]) -> bytes:
    """The visible part of a tab, as PNG."""
    tab.command("Page.bringToFront")  # a tab in the background draws nothing
    tab.command("Emulation.setDeviceMetricsOverride", **metrics)
    return base64.b64decode(tab.command("Page.captureScreenshot", format="png")["data"])


def receive_all(server: Installation, tabs: list[ChromiumTab]) -> bool:
    """Publish once, and return whether every tab has received something by now."""
    server.publish("demo", text="ready?")
    return all(tab.evaluate(SHOWN) for tab in tabs)


def publish(server: Installation, text: str) -> str:
    """Publish as the README does; returns the command and its output, with the default port."""
    command = f"""curl -d '{{"subscribers":["demo"],"text":"{text}"}}' localhost:{server.admin_port}"""
    output = subprocess.run(
        command.replace("curl", "curl -sS"), shell=True, check=True, capture_output=True, text=True
    ).stdout.strip()
    return f"{command}\n{output}".replace(str(server.admin_port), "22281")


def sheet(commands: list[str], pages: list[bytes]) -> str:
    """The page that shows commands and tabs together."""
    prompt = '<span class="prompt">$ </span>'
    terminal = "\n".join(prompt + html.escape(command) for command in commands)
    tabs = "".join(
        f'<div class="tab"><div class="bar">Tab {number}</div>'
        f'<img src="data:image/png;base64,{base64.b64encode(page).decode()}"></div>'
        for number, page in enumerate(pages, 1)
    )
    return (
        f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>"
        f'<div class="terminal">{terminal}</div><div class="tabs">{tabs}</div>'
    )


def draw(profile: ChromiumProfile, server: Installation, folder: Path) -> bytes:
    """Publish messages to two tabs, and return the picture of it."""
    page = folder / "hello.html"
    page.write_text((ROOT / "docs/hello.html").read_text().replace("22280", str(server.client_port)))
    tabs = [profile.new_tab(page.as_uri()) for _ in range(2)]
    wait_until(partial(receive_all, server, tabs), "a message in both tabs")
    commands = [publish(server, text) for text in TEXTS]
    for tab in tabs:
        wait_until(lambda tab=tab: tab.evaluate(SHOWN)[-len(TEXTS) :] == list(TEXTS), "the messages")  # type: ignore[misc]
        tab.evaluate(KEEP_LAST, len(TEXTS))
    pages = [screenshot(tab, TAB) for tab in tabs]
    together = folder / "sheet.html"
    together.write_text(sheet(commands, pages))
    return screenshot(profile.new_tab(together.as_uri()), SHEET)


def main(target: Path) -> None:
    """Draw the picture into a file."""
    with TemporaryDirectory() as folder, running_server(Path(folder)) as server:
        browser = Chromium(require("chromium", "chromium"), Path(folder) / "chromium")
        try:
            target.write_bytes(draw(browser.new_profile(), server, Path(folder)))
        finally:
            browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
