"""`aphlict demo`: a page that works, on a screen and on a phone."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import ChromiumProfile, ChromiumTab
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}


@pytest.fixture
def demo() -> Iterator[str]:
    """The address of a running demo, which exits with 0 on Ctrl-C."""
    command = [sys.executable, "-m", "aphlict", "demo"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert address, line
            yield address.group()
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0


def texts(tab: ChromiumTab) -> list[str]:
    """The texts of the messages on the page."""
    found = tab.evaluate("[...document.querySelectorAll('#messages li')].map((item) => item.firstChild.data)")
    return list(found)


def status(tab: ChromiumTab) -> str:
    """The state on the page."""
    return str(tab.evaluate("document.getElementById('status').textContent"))


def submit(tab: ChromiumTab, form: str, **fields: str) -> None:
    """Fill in a form and submit it."""
    tab.evaluate(
        "(id, fields) => { const form = document.getElementById(id);"
        " for (const name in fields) form[name].value = fields[name]; form.requestSubmit(); return 0 }",
        form,
        fields,
    )


def test_a_message_of_one_tab_appears_in_the_other(demo: str, profile: ChromiumProfile) -> None:
    tabs = [profile.new_tab(demo) for _ in range(2)]
    wait_until(lambda: [status(tab) for tab in tabs] == ["open", "open"], "both tabs to be connected")
    submit(tabs[0], "publish", text="to the demo channel")
    submit(tabs[1], "subscribe", channel="second")
    wait_until(lambda: texts(tabs[0]) and texts(tabs[1]), "the message in both tabs")
    submit(tabs[0], "publish", channel="second", text="to the second tab")
    wait_until(lambda: len(texts(tabs[1])) == 2, "the second message")
    assert texts(tabs[1]) == ["to the second tab", "to the demo channel"]
    assert texts(tabs[0]) == ["to the demo channel"]
    shown = tabs[0].evaluate("document.getElementById('connections').textContent")
    assert shown == "1 connection to the server"
    assert [tab.console("error") for tab in tabs] == [[], []]


def test_it_fits_on_a_phone(demo: str, profile: ChromiumProfile) -> None:
    tab = profile.new_tab(demo)
    wait_until(lambda: status(tab) == "open", "the page to be connected")
    tab.command("Emulation.setDeviceMetricsOverride", **PHONE)
    submit(tab, "subscribe", channel="PHID-USER-" + "x" * 60)
    wait_until(lambda: tab.evaluate("document.querySelectorAll('#channels li').length") == 2)
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    small = tab.evaluate(
        "[...document.querySelectorAll('button, input')].filter((e) => e.offsetHeight < 36).length"
    )
    assert small == 0, "controls are large enough for fingers"
