"""Where a page resumes: after a token that is not old, and the messages that it received since then."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.browser.cable import Cable, cable_to
from tests.browser.page import Page
from tests.support.installation import Installation, installed
from tests.support.waiting import wait_until

NewPage = Callable[[], Page]
HOUR = 3_600_000
MAX_IDS = 14  # uniqueIDs in a request to resume, beside the token
QUIET: dict[str, Any] = {
    "pingInterval": HOUR,
    "leaderCheckInterval": HOUR,
}  # nothing is sent without a reason

# Keeps `after` of each request to resume, and counts the commands `ping` and their acks. `onAck` may change an
# ack or drop it.
SPY = """() => {
  window.resumes = [];
  window.pings = window.acks = 0;
  window.onAck = (ack) => ack;
  window.WebSocket = class extends WebSocket {
    pingIds = new Set();
    send(text) {
      const { command, data, id } = JSON.parse(text);
      command == "replay" && resumes.push(data.after);
      command == "ping" && (pings++, this.pingIds.add(id));
      super.send(text);
    }
    set onmessage(receive) {
      super.onmessage = receive && ((event) => {
        let frame = JSON.parse(event.data);
        if (frame.type == "ack" && this.pingIds.has(frame.id)) {
          frame = onAck(frame);
          acks++;
        }
        frame && receive({ data: JSON.stringify(frame) });
      });
    }
  };
  const { fetch } = window;
  window.fetch = (url, options) => {
    resumes.push(new URL(url).searchParams.getAll("after"));
    return fetch(url, options);
  };
}"""


def watched(page: Page) -> Page:
    """Watch the requests of a page that has not connected yet."""
    page.tab.evaluate(f"({SPY})()")
    return page


def count(page: Page, name: str) -> int:
    """How many `pings` or `acks` there were."""
    return int(page.tab.evaluate(name))


def resumed(page: Page) -> list[str]:
    """What the page has resumed after, the last time."""
    return list(page.tab.evaluate("resumes.at(-1)"))


def is_token(text: str) -> bool:
    """Whether it is a token, and no uniqueID."""
    return text.startswith("~")


def publish(server: Installation, numbers: range) -> list[str]:
    """Publish messages with these numbers at once; return their uniqueIDs."""
    status, response = server.post([{"subscribers": ["all"], "n": n} for n in numbers])
    assert status == 200, response
    return [receipt["uniqueID"] for receipt in response["receipts"]]


def later(server: Installation, token: str) -> list[str]:
    """The uniqueIDs of the messages after a token, as the server knows them."""
    query = urlencode({"channel": "all", "after": token, "wait": 0})
    with urllib.request.urlopen(f"http://127.0.0.1:{server.client_port}/poll?{query}", timeout=5) as response:
        body = json.load(response)
    assert body["recovered"]
    return [message["uniqueID"] for message in body["messages"]]


def test_a_websocket_names_every_message_since_its_token(
    new_page_anywhere: NewPage, server: Installation, cable: Cable
) -> None:
    page = watched(new_page_anywhere()).listen(cable.url, "all", **QUIET)
    for n in range(40):
        publish(server, range(n, n + 1))
        page.wait_for(*range(n + 1))
    cable.close_connections()
    missed = publish(server, range(40, 41))
    page.wait_for(*range(41))
    *ids, token = resumed(page)
    assert is_token(token)
    assert len(ids) <= MAX_IDS
    assert later(server, token) == [*ids, *missed]
    assert page.gaps == 0


def test_messages_that_were_not_named_are_discarded(
    new_page_anywhere: NewPage, server: Installation, cable: Cable
) -> None:
    page = watched(new_page_anywhere()).listen(cable.url, "all", **QUIET)
    page.tab.evaluate("void (onAck = () => null)")
    before = count(page, "pings")
    ids = publish(server, range(30))
    page.wait_for(*range(30))
    assert count(page, "pings") == before + 1, "another one only after its ack"
    cable.close_connections()
    missed = publish(server, range(30, 31))
    page.wait_for(*range(31))
    *named, token = resumed(page)
    assert named == ids[-MAX_IDS:]
    assert later(server, token) == [*ids, *missed]
    assert page.gaps == 0


def test_a_token_that_the_server_did_not_have_is_requested_again(
    new_page: NewPage, server: Installation, cable: Cable
) -> None:
    page = watched(new_page()).listen(cable.url, "all", **QUIET)
    page.tab.evaluate("void (onAck = ({ last, ...ack }) => ack)")
    publish(server, range(12))  # fewer may be no reason to request one
    before = count(page, "acks")
    wait_until(lambda: count(page, "acks") > before + 1, "more than one request")
    page.tab.evaluate("void (onAck = (ack) => ack)")
    before = count(page, "acks")
    wait_until(lambda: count(page, "acks") > before, "another request")
    cable.close_connections()
    missed = publish(server, range(12, 13))
    page.wait_for(*range(13))
    [token] = resumed(page)
    assert later(server, token) == missed


@pytest.mark.parametrize("fallback", [1, 2], ids=["events", "polling"])
def test_a_fallback_sends_one_token(
    new_page_anywhere: NewPage, server: Installation, networks: list[Cable], fallback: int
) -> None:
    cable = networks[fallback]
    page = watched(new_page_anywhere()).listen(cable.url, "all")
    publish(server, range(20))
    page.wait_for(*range(20))
    cable.close_connections()
    missed = publish(server, range(20, 21))
    page.wait_for(*range(21))
    requests = [after for after in page.tab.evaluate("resumes") if after]
    tokens = [token for (token,) in requests]
    assert all(map(is_token, tokens))
    assert missed in [later(server, token) for token in tokens[-2:]]
    assert page.gaps == 0


@pytest.mark.parametrize("transport", [0, 1, 2], ids=["websocket", "events", "polling"])
def test_another_tab_resumes_from_the_token_of_the_leader(
    new_page_anywhere: NewPage, server: Installation, networks: list[Cable], transport: int
) -> None:
    url = networks[transport].url
    leader = new_page_anywhere().listen(url, "all", **QUIET)
    other = watched(new_page_anywhere()).listen(url, "all", **QUIET)
    for n in range(20):
        publish(server, range(n, n + 1))
        other.wait_for(*range(n + 1))
    leader.tab.close()
    missed = publish(server, range(20, 21))
    other.wait_for(*range(21))
    after = next(each for each in other.tab.evaluate("resumes") if each)
    *ids, token = after
    assert is_token(token)
    assert len(ids) <= (0 if transport else MAX_IDS)
    assert later(server, token) == [*ids, *missed]
    assert other.gaps == 0


def test_a_tab_that_came_later_resumes_where_the_leader_was(
    new_page_anywhere: NewPage, server: Installation
) -> None:
    leader = new_page_anywhere().listen(server.url, "all", **QUIET)
    ids = publish(server, range(3))
    leader.wait_for(*range(3))
    late = watched(new_page_anywhere()).listen(server.url, "all", **QUIET)
    leader.tab.close()
    missed = publish(server, range(3, 4))
    late.wait_for(3)
    *named, token = resumed(late)
    assert is_token(token)
    assert named == ids
    assert later(server, token) == [*ids, *missed]
    assert late.gaps == 0


DEAF = """() => {
  window.isDeaf = false;
  window.BroadcastChannel = class extends BroadcastChannel {
    set onmessage(hear) {
      super.onmessage = hear && ((event) => isDeaf || hear(event));
    }
  };
}"""


def test_a_leader_may_receive_messages_in_another_order(new_page: NewPage, tmp_path: Path) -> None:
    """The next leader has not received the last messages of the one before. It has them from another node."""
    with (
        installed(tmp_path / "0") as first,
        installed(tmp_path / "1") as second,
        cable_to(first.admin_port) as to_first,
        cable_to(second.admin_port) as to_second,
        cable_to(first.client_port) as cable,
    ):
        for node, link in ((first, to_second), (second, to_first)):
            node.write(cluster=[{"host": "127.0.0.1", "port": link.port}])
            node.start()
        wait_until(lambda: all(node.status()["peers"][0]["state"] == "up" for node in (first, second)))
        leader = new_page().listen(cable.url, "all", **QUIET)
        next_leader = new_page()
        next_leader.tab.evaluate(f"({DEAF})()")
        next_leader.listen(cable.url, "all", **QUIET)
        other = new_page().listen(cable.url, "all", **QUIET)
        publish(first, range(1))
        next_leader.wait_for(0)
        next_leader.tab.evaluate("void (isDeaf = true)")
        for link in (to_first, to_second):
            link.cut()
        publish(first, range(1, 2))
        publish(second, range(2, 3))
        for link in (to_first, to_second):
            link.reconnect()
        other.wait_for(0, 1, 2)
        next_leader.tab.evaluate("void (isDeaf = false)")
        cable.target = second.client_port
        leader.tab.close()
        next_leader.wait_for(0, 2, 1)
        publish(second, range(3, 4))
        next_leader.wait_for(0, 2, 1, 3)
        other.wait_for(0, 1, 2, 3)
        assert other.gaps == next_leader.gaps == 0
