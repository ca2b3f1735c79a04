"""The console shows what the server does, finds out why messages did not arrive, and publishes test messages."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from websockets.sync.client import ClientConnection, connect

from aphlict.core.trace_report import CODES
from tests.browser.chromium import ChromiumProfile
from tests.browser.console_page import Console, open_console
from tests.browser.driving import Profile
from tests.browser.server import Servers
from tests.support.browsing import ask, listening_to, receive
from tests.support.installation import Installation
from tests.support.tokens import token
from tests.support.waiting import wait_until

CLIENT = {"websocket": 1, "sse": 0, "poll": 0}
HOSTILE = (
    "<img src=x onerror=problems.push('markup')>",
    "</script><script>problems.push('script')</script>",
    "\u202egnp.exe\u2066 \u200b\x00\x1b[31m",
    "مرحبا",
    "👩\u200d👩\u200d👧 🏳️\u200d🌈",
    "z\u0300\u0301\u0302\u0303\u0304\u0305\u0306",
    "x" * 10_000,
    "javascript:problems.push('link')",
)


@pytest.fixture
def console(any_profile: Profile, server: Installation) -> Console:
    """The console of a server, in each browser."""
    return open_console(any_profile, server).wait()


def test_figures_appear_and_change(console: Console, server: Installation) -> None:
    assert console.rows("nodes-table")[0][:2] == ["This node", "running"]
    with listening_to(server.client_port, "PHID-TASK-1"):
        wait_until(lambda: console.figure("Clients").startswith("1 WebSocket"), "the client")
        before = console.figure("Deliveries since the start")
        server.publish("PHID-TASK-1", n=1)
        wait_until(lambda: console.figure("Deliveries since the start") != before, "the delivery")
        assert ["PHID-TASK-1", "default", "1"] in console.rows("channels-table")
        wait_until(lambda: console.rows("instances-table")[0][:2] == ["default", "1"], "the instance")
    wait_until(lambda: console.figure("Clients").startswith("0 WebSocket"), "no client")
    wait_until(lambda: not console.rows("channels-table"), "no channel")


def test_all_processes_are_shown(any_profile: Profile, servers: Servers) -> None:
    with servers.lend(workers=2) as server, listening_to(server.client_port, "demo"):
        console = open_console(any_profile, server).wait()
        wait_until(lambda: console.figure("Clients").startswith("1 WebSocket"), "the client")
        names = [row[0].partition(" (")[0] for row in console.rows("processes-table")]
        assert names == ["hub", "edge 1", "edge 2"]
        assert console.level == "good"
        console.submit("publish-form", channel="demo", text="to an edge")
        wait_until(lambda: "1 client is" in console.text("receipts"), "the receipt")


def test_the_last_minutes_are_drawn(console: Console, server: Installation) -> None:
    lines = "[...document.querySelectorAll('#charts .line')].map((line) => line.getAttribute('d'))"
    server.publish("demo", n=1)
    wait_until(lambda: all(console.tab.evaluate(lines)[:3]), "the charts", 20)
    console.tab.evaluate("void (document.getElementById('samples').open = true)")
    wait_until(lambda: len(console.rows("samples-table")) > 1, "two samples", 20)
    labels = "[...document.querySelectorAll('#charts svg')].map((chart) => chart.getAttribute('aria-label'))"
    assert len(console.tab.evaluate(labels)) == 6
    assert all(console.tab.evaluate(labels))
    assert console.problems == []


@contextmanager
def listening_as(subject: str, port: int, *channels: str) -> Iterator[ClientConnection]:
    """Connect with a token for any channel, and subscribe."""
    with connect(f"ws://127.0.0.1:{port}/", open_timeout=20) as browser:
        ask(browser, "auth", token("PHID-*", sub=subject))
        ask(browser, "subscribe", list(channels))
        yield browser


def test_a_trace_names_the_reason(any_profile: Profile, strict_server: Installation) -> None:
    """Alice's page has misspelt its channel: the search for her shows that, and what to do."""
    console, port = open_console(any_profile, strict_server).wait(), strict_server.client_port
    with listening_as("bob", port, "PHID-TASK-1") as right, listening_as("alice", port, "PHID-TSAK-1"):
        id = strict_server.publish("PHID-TASK-1", n=1)["uniqueID"]
        receive(right, 1)
        assert {"written", "not_subscribed"} <= set(console.trace(id=id))
        assert console.trace(id=id, user="alice") == ["not_subscribed"]
        assert "PHID-TSAK-1" in console.text("trace-result")
        console.tab.evaluate("document.querySelector('#trace-result a').click()")
        wait_until(lambda: "connections=1" in console.tab.evaluate("location.hash"), "the search")
        assert console.codes() == ["not_subscribed"]
    assert console.trace(id="nothing") == ["unknown"]
    assert console.problems == []


def test_a_hostile_subject_is_text(any_profile: Profile, strict_server: Installation) -> None:
    subject = HOSTILE[0] + "\u202e"
    console = open_console(any_profile, strict_server).wait()
    with listening_as(subject, strict_server.client_port, "PHID-TASK-1"):
        strict_server.publish("PHID-TASK-1")
        console.trace(user=subject)
        wait_until(lambda: f"{HOSTILE[0]}\\u202e" in console.text("trace-result"), "the connection")
        assert console.tab.evaluate("document.querySelectorAll('main img').length") == 0
    assert console.problems == []


def test_a_message_is_found_by_its_channel(console: Console, server: Installation) -> None:
    with listening_to(server.client_port, "found"):
        id = server.publish("found", n=1)["uniqueID"]
        wait_until(lambda: ["found", "default", "1"] in console.rows("channels-table"), "the channel")
        console.tab.evaluate("[...document.querySelectorAll('#channels-table button')][0].click()")
        console.codes()
        links = "[...document.querySelectorAll('#trace-result ul a')]"
        assert id in console.tab.evaluate(f"{links}.map((link) => link.textContent)")
        console.tab.evaluate(f"{links}.at(-1).click()")
        wait_until(
            lambda: console.text("trace-result").startswith(f"Message {id}"), "the trace of the message"
        )
        assert console.tab.evaluate("document.querySelector('#trace-form').elements.id.value") == id


def test_a_test_message_arrives(console: Console, server: Installation) -> None:
    with listening_to(server.client_port, "demo", "kö&n=1") as client:
        console.submit("publish-form", channel="demo", text="Is anybody there?")
        [message] = receive(client, 1)
        assert message["text"] == "Is anybody there?"
        wait_until(lambda: console.text("receipts"), "the receipt")
        assert message["uniqueID"] in console.text("receipts")
        console.tab.evaluate("document.querySelector('#receipts a').click()")
        assert "written" in console.codes()
        for number in range(6):
            console.submit("publish-form", channel="kö&n=1", text=str(number))
            assert receive(client, 1)[0]["text"] == str(number)
            wait_until(lambda: console.text("publish-status") == "Published.", "the receipt")
        assert console.tab.evaluate("document.querySelectorAll('#receipts li').length") == 5
    console.submit("publish-form", channel="demo", text="another", instance="acme")
    wait_until(
        lambda: console.tab.evaluate("document.querySelector('#receipts a').hash").endswith("instance=acme")
    )
    assert console.problems == []


def test_a_rejected_test_message(console: Console, server: Installation) -> None:
    console.submit("publish-form", channel="x" * 10_000, text="too long")
    wait_until(lambda: "[name_too_long]" in console.text("publish-status"), "the reason")
    assert console.text("receipts") == ""
    wait_until(lambda: "limits.name" in str(console.rows("counters-table")), "the counter")
    wait_until(lambda: console.level == "warning", "the verdict")


def traced(console: Console, id: str) -> bool:
    """Whether an element has the result of a search."""
    return console.text(id) not in ("", "Searching …")


def test_hostile_names_are_text(any_profile: Profile, servers: Servers) -> None:
    with servers.lend(name=20_000) as server, listening_to(server.client_port, *HOSTILE):
        console = open_console(any_profile, server).wait()
        wait_until(lambda: len(console.rows("channels-table")) == len(HOSTILE), "the channels")
        shown = [row[0] for row in console.rows("channels-table")]
        assert set(shown) == {
            *HOSTILE[:2],
            "\\u202egnp.exe\\u2066 \\u200b\\x00\\x1b[31m",
            *HOSTILE[3:5],
            "z\u0300\u0301\u0302\\u0303\\u0304\\u0305\\u0306",
            f"{'x' * 200}… (10,000 characters)",
            HOSTILE[7],
        }
        for index, name in enumerate(shown):
            server.publish(*HOSTILE, text=name)
            console.tab.evaluate(f"document.querySelectorAll('#channels-table button')[{index}].click()")
            # The longest name does not fit into the head of a request.
            what = "trace-result" if len(name) < 200 else "trace-status"
            wait_until(partial(traced, console, what), "the trace")
            console.tab.evaluate("void document.getElementById('trace-result').replaceChildren()")
        console.trace(id="<img src=x onerror=problems.push('trace')>", user="<b>")
        assert console.tab.evaluate("document.querySelectorAll('main img, main b, main script').length") == 0
        console.tab.resize(390, 800)
        assert console.tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert console.problems == []


def test_it_goes_on_after_a_restart(console: Console, server: Installation) -> None:
    server.stop()
    wait_until(lambda: console.is_shown("reach") and console.level == "error", "the failure")
    shown = console.text("reach")
    assert "not been reachable since" in shown
    server.start()
    wait_until(lambda: not console.is_shown("reach") and console.level == "good", "the server")
    server.publish("demo", n=1)
    wait_until(lambda: console.figure("Messages since the start").startswith("1,"), "new figures")
    assert console.problems == []


def test_a_hidden_page_requests_nothing(console: Console, any_profile: Profile) -> None:
    other = any_profile.new_tab("about:blank")
    other.show()
    wait_until(lambda: console.tab.evaluate("document.hidden"), "the page to be hidden")
    # One request may be on its way. Nothing signals that no other follows: two more would be due.
    later = "new Promise((done) => setTimeout(() => done(overviews), 1000))"
    before = console.tab.evaluate(later)
    for _ in range(4):
        assert console.tab.evaluate(later) == before
    console.tab.show()
    wait_until(lambda: console.tab.evaluate("overviews") > before + 1, "more requests")


def test_a_peer_that_is_not_reachable_is_the_verdict(profile: ChromiumProfile, servers: Servers) -> None:
    cluster = [{"host": "127.0.0.1", "port": 1, "protocol": "http"}]
    with servers.lend(cluster=cluster) as server:
        console = open_console(profile, server).wait()
        wait_until(lambda: console.level == "error", "the verdict")
        assert "127.0.0.1:1" in console.text("findings")
        assert "AphlictPeerDown" in console.text("findings")
        assert [row[:2] for row in console.rows("nodes-table")[1:]] == [["127.0.0.1:1", "not reachable"]]
        assert console.trace(id=server.publish("demo")["uniqueID"])[-1] == "node_unreachable"


def test_the_log_is_filtered_by_level(console: Console, server: Installation) -> None:
    server.post({"subscribers": ["x" * 10_000]})
    wait_until(lambda: any(row[2] == "limit_reached" for row in console.rows("log-table")), "the log line")
    levels = {row[1] for row in console.rows("log-table")}
    assert "warning" in levels
    show = """(level) => {
      document.getElementById("level").value = level;
      document.getElementById("level").dispatchEvent(new Event("change"));
    }"""
    console.tab.evaluate(show, "warning")
    assert {row[1] for row in console.rows("log-table")} <= {"warning", "error"}
    console.tab.evaluate(show, "error")
    assert {row[1] for row in console.rows("log-table")} <= {"error"}


@pytest.mark.parametrize(
    ("change", "level", "manual"),
    [
        ({}, "good", ""),
        ({"state": "ERROR"}, "error", "monitoring.md"),
        ({"state": "STOPPING"}, "warning", "operations.md"),
        ({"processes_expected": 2}, "error", "monitoring.md"),
        ({"certificates": [{"port": "443", "expires": 1e9 - 1}]}, "error", "monitoring.md"),
        ({"certificates": [{"port": "443", "expires": 1e9 + 86_400}]}, "warning", "monitoring.md"),
        ({"certificates": [{"port": "443", "expires": 1e9 + 86_400 * 30}]}, "good", ""),
        ({"figures": {"descriptors_used_ratio": 0.81}}, "warning", "monitoring.md"),
        ({"figures": {"connections_limit": 1, "connections": CLIENT}}, "error", "monitoring.md"),
        ({"figures": {"gap": 1}}, "warning", "monitoring.md"),
        ({"figures": {"lost": 1}}, "warning", "monitoring.md"),
        ({"closed": {"slow": 1}}, "warning", "monitoring.md"),
        ({"closed": {"client": 1}}, "good", ""),
        ({"limits": {"limits.body": 1}}, "warning", "operations.md"),
        ({"limits": {"ping.timeout": 1}}, "good", ""),
        ({"refused": {"origins": 1}}, "good", "operations.md"),
        ({"refused": {"admin.secret": 1}}, "warning", "operations.md"),
        ({"series": {"delivery_time": [None, 0.7]}}, "warning", "performance.md"),
        ({"processes": [{"name": "worker", "pid": 1, "lag": 0.3}]}, "warning", "monitoring.md"),
    ],
    ids=json.dumps,
)
def test_the_verdict(console_script: Console, change: dict[str, object], level: str, manual: str) -> None:
    found = console_script.tab.evaluate(
        """async (change) => {
          const { examine, conclude } = await import("./console/verdict.js");
          const now = await (await fetch("overview")).json();
          Object.assign(now.figures, { gap: 0, lost: 0 }); // other tests have used this server
          const before = structuredClone({ ...now, time: 1e9 - 300, limits: {}, refused: {}, closed: {} });
          Object.assign(now, { time: 1e9, uptime: 1e6, events: [], limits: {}, refused: {}, closed: {} });
          for (const [key, value] of Object.entries(change)) {
            const isObject = typeof value == "object" && !Array.isArray(value);
            now[key] = isObject ? { ...now[key], ...value } : value;
          }
          const found = examine(now, before);
          return [conclude(found).level, found.map(({ manual }) => manual).join()];
        }""",
        change,
    )
    assert found[0] == level, found
    assert manual in found[1]


@pytest.fixture
def console_script(profile: ChromiumProfile, server: Installation) -> Console:
    """A page that can import the scripts of the console."""
    return open_console(profile, server)


def test_every_code_of_a_trace_has_advice(console_script: Console) -> None:
    codes = console_script.tab.evaluate(
        "import('./console/advice.js').then(({ ADVICE }) => Object.keys(ADVICE))"
    )
    assert set(CODES) <= set(codes)
