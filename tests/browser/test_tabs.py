"""One connection for all tabs, whatever happens to the tab that holds it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.browser.driving import PageError
from tests.browser.page import Page
from tests.support.installation import Installation
from tests.support.waiting import wait_until

NewPage = Callable[[], Page]
CHANGES = (100, 280, 460, 640, 820)


def test_tabs_share_one_connection_and_each_gets_its_own(
    new_page_anywhere: NewPage, server: Installation
) -> None:
    first = new_page_anywhere().listen(server.url, "all", "first")
    second = new_page_anywhere().listen(server.url, "all", "second")
    server.publish("first", n=1)
    server.publish("all", n=2)
    server.publish("second", n=3)
    server.publish("first", "second", n=4)
    first.wait_for(1, 2, 4)
    second.wait_for(2, 3, 4)
    assert server.connections == 1
    assert first.state == second.state == "open"
    assert first.gaps == second.gaps == 0


def test_the_union_of_channels_shrinks_when_a_tab_goes(
    new_page_anywhere: NewPage, server: Installation
) -> None:
    new_page_anywhere().listen(server.url, "all")
    second = new_page_anywhere().listen(server.url, "all", "second")
    assert server.publish("second")["matched"] == 1
    second.tab.close()
    wait_until(lambda: server.publish("second")["matched"] == 0, "the channel of the closed tab to go")
    assert server.publish("all")["matched"] == 1


def test_another_tab_goes_on_when_the_leader_is_closed(
    new_page_anywhere: NewPage, server: Installation
) -> None:
    leader = new_page_anywhere().listen(server.url, "all")
    others = [new_page_anywhere().listen(server.url, "all", f"tab{n}") for n in range(2)]
    server.publish("all", n=1)
    leader.wait_for(1)
    leader.tab.close()
    for n in range(2, 6):
        server.publish("all", "tab1", n=n)
    for page in others:
        page.wait_for(1, 2, 3, 4, 5)
        assert page.gaps == 0
    assert server.connections == 1


def test_another_tab_goes_on_when_the_leader_crashes(new_page: NewPage, server: Installation) -> None:
    leader = new_page().listen(server.url, "all", "crash")
    other = new_page().listen(server.url, "all")
    server.publish("all", n=1)
    other.wait_for(1)
    leader.chromium.crash()
    for n in range(2, 6):
        server.publish("all", n=n)
    other.wait_for(1, 2, 3, 4, 5)
    wait_until(lambda: server.publish("crash")["matched"] == 0, "the crashed tab's channel to go")
    assert other.gaps == 0


@pytest.mark.parametrize("warned", [True, False])
def test_another_tab_goes_on_while_the_leader_is_frozen(
    new_page: NewPage, server: Installation, *, warned: bool
) -> None:
    leader = new_page().listen(server.url, "all", "leader")
    other = new_page().listen(server.url, "all")
    server.publish("all", n=1)
    other.wait_for(1)
    leader.chromium.freeze(warned=warned)
    for n in range(2, 6):
        server.publish("all", "leader", n=n)
    other.wait_for(1, 2, 3, 4, 5)
    leader.chromium.thaw(warned=warned)
    leader.wait_for(1, 2, 3, 4, 5)
    server.publish("all", "leader", n=6)
    leader.wait_for(1, 2, 3, 4, 5, 6)
    other.wait_for(1, 2, 3, 4, 5, 6)
    wait_until(lambda: server.connections == 1, "the old leader to hang up")
    assert other.gaps == 0


def test_a_tab_alone_where_sharing_is_off(new_page: NewPage, server: Installation) -> None:
    pages = [new_page().listen(server.url, "all", sharedConnection=False) for _ in range(2)]
    server.publish("all", n=1)
    for page in pages:
        page.wait_for(1)
    assert server.connections == 2
    pages[0].tab.evaluate("aphlict.disconnect()")
    wait_until(lambda: server.connections == 1)
    assert pages[0].state == "disconnected"


def test_a_tab_alone_where_the_browser_has_no_locks(new_page: NewPage, server: Installation) -> None:
    pages = [new_page(), new_page()]
    for page in pages:
        page.tab.evaluate("Object.defineProperty(navigator, 'locks', { value: undefined })")
        page.listen(server.url, "all")
    server.publish("all", n=1)
    for page in pages:
        page.wait_for(1)
    assert server.connections == 2


def test_a_tab_alone_where_locks_are_refused(new_page: NewPage, server: Installation) -> None:
    pages = [new_page(), new_page()]
    for page in pages:
        page.tab.evaluate(
            "LockManager.prototype.request = () => Promise.reject(new DOMException('SecurityError'))"
        )
        page.listen(server.url, "all")
    server.publish("all", n=1)
    for page in pages:
        page.wait_for(1)
    assert server.connections == 2


def test_a_tab_alone_goes_on_after_it_was_frozen(new_page: NewPage, server: Installation) -> None:
    page = new_page().listen(server.url, "all", sharedConnection=False)
    server.publish("all", n=1)
    page.wait_for(1)
    page.chromium.freeze(warned=True)
    wait_until(lambda: server.connections == 0, "the frozen tab to hang up")
    server.publish("all", n=2)
    page.chromium.thaw(warned=True)
    page.wait_for(1, 2)
    assert page.gaps == 0


@contextmanager
def away(page: Page, web: str) -> Iterator[None]:
    """Show another page in the tab, then return to this one from the back/forward cache."""
    page.tab.evaluate("(window.wasHere = true, 0)")
    page.chromium.command("Page.navigate", url=web.replace("127.0.0.1", "localhost"))
    wait_until(lambda: shows(page, "location.hostname == 'localhost'"), "the other page")
    yield
    page.tab.evaluate("(setTimeout(() => history.back()), 0)")
    wait_until(lambda: shows(page, "!!window.wasHere"), "the page to be shown again")


def shows(page: Page, condition: str) -> bool:
    """Whether a condition is true in a tab that may be loading another page."""
    with suppress(PageError):
        return bool(page.tab.evaluate(condition))
    return False


@pytest.mark.parametrize("share", [True, False])
def test_a_page_from_the_cache_has_one_connection(
    new_page: NewPage, server: Installation, web: str, *, share: bool
) -> None:
    page = new_page().listen(server.url, "all", sharedConnection=share)
    with away(page, web):
        wait_until(lambda: not server.connections, "the connection's end")
    page.ready()
    server.publish("all", n=1)
    page.wait_for(1)
    wait_until(lambda: server.connections == 1, "one connection")
    page.tab.evaluate("aphlict.disconnect()")
    wait_until(lambda: not server.connections, "the end of every connection")


# The events of a page that enters and leaves the back/forward cache. Chromium does not put a page there while another
# tab waits for one of its locks, so the tests dispatch them.
GOES = """window.dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true })),
document.dispatchEvent(new Event("freeze"))"""
COMES_BACK = """document.dispatchEvent(new Event("resume")),
window.dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }))"""


def test_a_page_from_the_cache_receives_a_gap(new_page: NewPage, server: Installation) -> None:
    pages = [new_page().listen(server.url, "all") for _ in range(2)]
    hidden, other = pages
    hidden.tab.evaluate(GOES)
    wait_until(lambda: other.leads, "the other tab to lead")
    server.publish("all", n=1)
    other.wait_for(1)
    hidden.tab.evaluate(COMES_BACK)
    hidden.ready()
    assert (hidden.got, hidden.gaps) == ([], 1)
    server.publish("all", n=2)
    hidden.wait_for(2)
    other.wait_for(1, 2)
    assert server.connections == 1


LOSSY = """() => {
  window.BroadcastChannel = class extends BroadcastChannel {
    set onmessage(hear) {
      super.onmessage = (event) => {
        if (!(event.data.message && window.lost.includes(event.data.message.n) && !event.data.to)) {
          hear(event);
        }
      };
    }
  };
  window.lost = [2, 3];
}"""


def test_a_tab_that_missed_a_step_asks_for_it(new_page: NewPage, server: Installation) -> None:
    leader = new_page().listen(server.url, "all")
    other = new_page()
    other.tab.evaluate(f"({LOSSY})()")
    other.listen(server.url, "all")
    for n in range(1, 6):
        server.publish("all", n=n)
    leader.wait_for(1, 2, 3, 4, 5)
    other.wait_for(1, 2, 3, 4, 5)
    assert other.gaps == 0


def test_a_tab_that_missed_the_last_step_notices(new_page: NewPage, server: Installation) -> None:
    new_page().listen(server.url, "all")
    other = new_page()
    other.tab.evaluate(f"({LOSSY})()")
    other.listen(server.url, "all")
    for n in (1, 2):
        server.publish("all", n=n)
    other.wait_for(1, 2)


def test_a_callback_that_throws_does_not_affect_others(new_page: NewPage, server: Installation) -> None:
    page = new_page().listen(server.url)
    page.tab.evaluate("aphlict.subscribe('all', () => { throw new Error('mine') })")
    page.tab.evaluate("aphlict.subscribe('all', (message) => got.push(message.n))")
    page.ready()
    server.publish("all", n=1)
    server.publish("all", n=2)
    page.wait_for(1, 2)


def test_a_subscription_ends_when_its_last_listener_goes(new_page: NewPage, server: Installation) -> None:
    page = new_page().listen(server.url, "all")
    page.tab.evaluate("window.more = aphlict.subscribe('all')")
    page.tab.evaluate("subscriptions.all()")
    page.ready()
    assert server.publish("all", n=1)["matched"] == 1
    page.tab.evaluate("(more(), more())")
    wait_until(lambda: server.publish("all")["matched"] == 0, "the channel to go")
    assert page.got == []


def test_an_instance_is_named_by_an_option(new_page: NewPage, server: Installation) -> None:
    page = new_page().listen(server.url, "all", instance="a/b c~d")
    server.publish("all", n=1)
    server.publish("all", n=2, instance="a/b c~d")
    page.wait_for(2)


def test_a_thousand_messages_over_five_changes_of_leader(
    new_page_anywhere: NewPage, server: Installation
) -> None:
    pages = [new_page_anywhere().listen(server.url, "all") for _ in range(7)]
    for n in range(1000):
        server.publish("all", n=n)
        if n in CHANGES:
            wait_until(lambda: any(page.leads for page in pages), "a leader")
            leader = next(page for page in pages if page.leads)
            pages.remove(leader)
            if n == CHANGES[2]:
                leader.tab.open("about:blank")
            else:
                leader.tab.close()
    assert len(pages) == 2
    for page in pages:
        page.wait_for(*range(1000))
        assert page.gaps == 0
    assert server.connections == 1
