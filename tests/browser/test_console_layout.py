"""The console on a telephone, in the dark, and for people who use a keyboard or a screen reader."""

from collections.abc import Iterator

import pytest

from tests.browser.chromium import ChromiumProfile
from tests.browser.console_page import Console, open_console
from tests.browser.driving import Profile
from tests.browser.server import Servers
from tests.support.browsing import listening_to
from tests.support.installation import Installation
from tests.support.waiting import wait_until

TELEPHONE = 390  # CSS pixels
MIN_CONTRAST = 4.5  # WCAG 2, 1.4.3

# The texts whose contrast is too low, by the formula of WCAG 2. Backgrounds of the page are opaque or absent.
FAINT = """(least) => {
  const luminance = (colour) => {
    const [red, green, blue] = colour.match(/[0-9.]+/g).map(Number).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => {
    const colour = element && getComputedStyle(element).backgroundColor;
    return !element ? "rgb(255, 255, 255)" : colour == "rgba(0, 0, 0, 0)" ? behind(element.parentElement) : colour;
  };
  const contrast = (element) => {
    const [one, other] = [getComputedStyle(element).color, behind(element)].map(luminance).sort((a, b) => b - a);
    return (one + 0.05) / (other + 0.05);
  };
  const hasText = (element) => [...element.childNodes].some((node) => node.nodeType == 3 && node.data.trim());
  const shown = [...document.querySelectorAll("body *")].filter((each) => each.checkVisibility());
  return shown.filter((each) => hasText(each) || each.matches("input, select"))
    .map((each) => [each.tagName, each.textContent.trim().slice(0, 40), contrast(each)])
    .filter(([, , value]) => value < least);
}"""
UNNAMED = """[...document.querySelectorAll(
    "input, select, button, a, [role=img], [role=region], section, table, nav",
  )].filter((each) => each.checkVisibility())
  .filter((each) => !(
    each.textContent.trim() && each.matches("button, a")
    || each.labels?.length || each.getAttribute("aria-label")
    || document.getElementById(each.getAttribute("aria-labelledby"))?.textContent
  )).map((each) => each.outerHTML.slice(0, 80))"""
SMALL = """[...document.querySelectorAll("button, input, select, nav a, summary")]
  .filter((each) => each.checkVisibility() && each.getBoundingClientRect().height < 20)
  .map((each) => each.outerHTML.slice(0, 80))"""


@pytest.fixture
def busy(servers: Servers) -> Iterator[Installation]:
    """A server whose console has much to show: an unreachable peer, refusals, channels."""
    cluster = [{"host": "127.0.0.1", "port": 1, "protocol": "http"}]
    with servers.lend(cluster=cluster) as server, listening_to(server.client_port, "x" * 250, "PHID-USER-1"):
        server.post({"subscribers": ["x" * 10_000]})
        server.publish("PHID-USER-1", n=1)
        yield server


def see_everything(console: Console, server: Installation) -> None:
    """Wait until all panels have contents."""
    console.wait()
    wait_until(lambda: console.level == "error", "the verdict")
    wait_until(lambda: len(console.rows("channels-table")) == 2, "the channels")
    console.tab.evaluate("void (document.getElementById('samples').open = true)")
    console.submit("publish-form", channel="PHID-USER-1", text="x")
    wait_until(lambda: console.text("receipts"), "a receipt")
    console.trace(id=server.publish("PHID-USER-1", n=2)["uniqueID"])
    wait_until(lambda: console.rows("samples-table"), "samples", 20)


def test_no_horizontal_scrolling(any_profile: Profile, busy: Installation) -> None:
    console = open_console(any_profile, busy)
    see_everything(console, busy)
    for width in (320, TELEPHONE, 768, 1280, 2560):
        console.tab.resize(width, 800)
        assert console.tab.evaluate("innerWidth") == width
        assert console.tab.evaluate("document.documentElement.scrollWidth") <= width
        assert console.tab.evaluate(SMALL) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [TELEPHONE, 1280])
def test_contrast(profile: ChromiumProfile, busy: Installation, scheme: str, width: int) -> None:
    console = open_console(profile, busy)
    tab = console.chromium
    tab.prefer(scheme)
    tab.resize(width, 800)
    see_everything(console, busy)
    background = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)[0]"
    assert (tab.evaluate(background) < 128) == (scheme == "dark")
    assert tab.evaluate(FAINT, MIN_CONTRAST) == []
    busy.stop()
    wait_until(lambda: console.is_shown("reach"), "the banner")
    assert tab.evaluate(FAINT, MIN_CONTRAST) == []
    busy.start()


def test_landmarks_and_names(any_profile: Profile, busy: Installation) -> None:
    console = open_console(any_profile, busy)
    see_everything(console, busy)
    landmarks = (
        "['header', 'nav', 'main', 'footer', 'h1'].map((each) => document.querySelectorAll(each).length)"
    )
    assert console.tab.evaluate(landmarks) == [1] * 5
    assert console.tab.evaluate(UNNAMED) == []
    assert console.tab.evaluate("document.querySelectorAll('[tabindex]:not([tabindex=\"0\"])').length") == 0
    live = "['verdict-text', 'reach', 'trace-status', 'publish-status'].map((id) => document.getElementById(id).role)"
    assert console.tab.evaluate(live) == ["status", "alert", "status", "status"]


def test_a_level_is_not_only_a_colour(any_profile: Profile, busy: Installation) -> None:
    console = open_console(any_profile, busy)
    see_everything(console, busy)
    signs = """[...document.querySelectorAll("[data-level]")]
      .filter((each) => each.checkVisibility() && each.dataset.level)
      .map((each) => [each.dataset.level, getComputedStyle(each, "::before").content])"""
    found = {level: sign[1] for level, sign in console.tab.evaluate(signs)}
    assert {"error", "good"} <= set(found)
    assert len(set(found.values())) == len(found)


def test_focus_stays_while_figures_change(any_profile: Profile, busy: Installation) -> None:
    console = open_console(any_profile, busy)
    see_everything(console, busy)
    console.tab.evaluate("void document.querySelector('#channels-table button').focus()")
    before = console.figure("Messages since the start")
    busy.publish("PHID-USER-1")
    wait_until(lambda: console.figure("Messages since the start") != before, "another figure")
    assert console.tab.evaluate("document.activeElement.closest('#channels-table') != null")


def test_reduced_motion(profile: ChromiumProfile, server: Installation) -> None:
    tab = open_console(profile, server).chromium
    for value, behaviour in (("no-preference", "smooth"), ("reduce", "auto")):
        tab.command(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": value}]
        )
        assert tab.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == behaviour
