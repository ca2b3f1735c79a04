"""Pages of other sites in real browsers: they get nothing from a server with `origins`, nor from an admin server."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.browser.chromium import ChromiumProfile
from tests.browser.driving import Profile
from tests.browser.page import Page, page_server
from tests.support.installation import Installation, installed, running_server
from tests.support.waiting import wait_until

# Each results in "open" or "error", or in an HTTP status (0: a response that the page may not read).
SOCKET = """new Promise((tell) => {
  const socket = new WebSocket("%s");
  socket.onopen = () => tell("open");
  socket.onerror = () => tell("error");
})"""
EVENTS = """new Promise((tell) => {
  const source = new EventSource("%s?channel=demo");
  source.onopen = () => tell("open");
  source.onerror = () => tell("error");
})"""
POLL = 'fetch("%s?channel=demo&wait=0").then((answer) => answer.ok ? "open" : "error", () => "error")'
STATUS = 'fetch("%s", {mode: "%s"}).then((answer) => answer.status, () => 0)'
PUBLISH = STATUS.replace("{m", '{method: "POST", body: `{"subscribers": ["demo"]}`, m')


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Installation]:
    """A server whose totals are 0."""
    with running_server(tmp_path) as server:
        yield server


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[tuple[Installation, str]]:
    """A server that allows pages of one origin, and the address of such a page."""
    with (
        installed(tmp_path) as server,
        page_server(f"http://127.0.0.1:{server.client_port}/ws/aphlict.js") as address,
    ):
        server.write(client={"origins": [address.rstrip("/")]})
        server.start()
        yield server, address


def ways(server: Installation) -> list[str]:
    """A script for each transport."""
    base = f"http://127.0.0.1:{server.client_port}/ws/"
    return [SOCKET % server.url, EVENTS % f"{base}events", POLL % f"{base}poll"]


def test_a_page_of_an_allowed_origin_connects(any_profile: Profile, strict: tuple[Installation, str]) -> None:
    server, address = strict
    tab = any_profile.new_tab(address)
    assert [tab.evaluate(way) for way in ways(server)] == ["open"] * 3
    page = Page(tab).listen(server.url, "demo")
    server.publish("demo", n=1)
    page.wait_for(1)


def test_a_page_of_another_origin_does_not(any_profile: Profile, strict: tuple[Installation, str]) -> None:
    server, address = strict
    port = urlsplit(address).port
    tab = any_profile.new_tab(f"http://localhost:{port}/")
    assert [tab.evaluate(way) for way in ways(server)] == ["error"] * 3
    assert server.status()["clients.total"] == 0
    assert server.status()["refused"]["origins"] >= 3


def test_dns_rebinding_to_a_client_port_is_refused(
    profile: ChromiumProfile, strict: tuple[Installation, str]
) -> None:
    """DNS rebinding: its requests are of the same origin, so they have no `Origin`."""
    server, _ = strict
    refused = server.status()["refused"]["origins"]
    tab = profile.new_tab(f"http://rebound.example:{server.client_port}/ws/aphlict.js")
    assert tab.evaluate("location.hostname") == "rebound.example"
    assert [tab.evaluate(way % f"/ws/{end}") for way, end in ((EVENTS, "events"), (POLL, "poll"))] == [
        "error"
    ] * 2
    assert tab.evaluate(SOCKET % f"ws://rebound.example:{server.client_port}/ws/") == "error"
    assert server.status()["refused"]["origins"] >= refused + 3
    assert server.status()["clients.total"] == 0
    own = profile.new_tab(f"http://127.0.0.1:{server.client_port}/ws/aphlict.js")
    assert own.evaluate(POLL % "/ws/poll") == "open"


def test_a_page_of_others_cannot_embed_a_poll(any_profile: Profile, server: Installation, web: str) -> None:
    tab = any_profile.new_tab(web)
    poll = f"http://127.0.0.1:{server.client_port}/ws/poll?channel=demo&wait=0"
    unread = "fetch(%r, {mode: 'no-cors'}).then((answer) => answer.type, () => 'error')"
    assert tab.evaluate(unread % poll) == "error"
    script = f"http://127.0.0.1:{server.client_port}/ws/aphlict.js"
    assert tab.evaluate(unread % script) == "opaque"


def test_a_page_cannot_publish(any_profile: Profile, server: Installation, web: str) -> None:
    tab = any_profile.new_tab(web)
    admin = f"http://127.0.0.1:{server.admin_port}/"
    assert tab.evaluate(PUBLISH % (admin, "no-cors")) == 0
    assert tab.evaluate(STATUS % (f"{admin}status/", "no-cors")) == 0
    tab.evaluate(
        f"""(() => {{
          document.body.innerHTML = `<iframe name="away"></iframe>
            <form method="post" action="{admin}" target="away" enctype="text/plain">
            <input name='{{"subscribers": ["demo"], "a": "' value='"}}'></form>`;
          document.forms[0].submit();
        }})()"""
    )
    wait_until(lambda: server.status()["refused"]["admin.pages"] >= 3, "three refusals")
    assert server.status()["messages.in"] == 0


def test_dns_rebinding_to_an_admin_port_is_refused(profile: ChromiumProfile, server: Installation) -> None:
    tab = profile.new_tab(f"http://rebound.example:{server.admin_port}/status/")
    assert "rebound.example is not known" in tab.evaluate("document.body.innerText")
    assert tab.evaluate("location.host") == f"rebound.example:{server.admin_port}"
    assert tab.evaluate(STATUS % ("/status/", "same-origin")) == 403
    assert tab.evaluate(PUBLISH % ("/", "same-origin")) == 403
    status = server.status()
    assert status["messages.in"] == 0
    assert status["refused"]["admin.hosts"] >= 3
