"""The page and the snippet of the README, in real browsers."""

from pathlib import Path

from tests.browser.driving import Profile, Tab
from tests.docs.pages import ROOT, examples
from tests.support.installation import Installation
from tests.support.ports import free_ports
from tests.support.waiting import wait_until


def open_page(profile: Profile, server: Installation, folder: Path, text: str) -> Tab:
    """Open a page as a file, as the README describes, with the port of the test's server."""
    page = folder / "hello.html"
    page.write_text(text.replace("22280", str(server.client_port)))
    return profile.new_tab(page.as_uri())


def test_the_hello_page_shows_what_is_published(
    any_profile: Profile, server: Installation, tmp_path: Path
) -> None:
    tab = open_page(any_profile, server, tmp_path, (ROOT / "docs/hello.html").read_text())
    wait_until(
        lambda: tab.evaluate("document.getElementById('status').textContent") == "open", "a connection"
    )
    wait_until(lambda: server.publish("demo", text="hello")["matched"], "a subscription")
    shown = "document.getElementById('messages').innerText"
    wait_until(lambda: "hello" in tab.evaluate(shown), "the message")


def test_the_hello_page_reports_a_missing_server(
    any_profile: Profile, server: Installation, tmp_path: Path
) -> None:
    text = (ROOT / "docs/hello.html").read_text().replace("22280", str(free_ports(1)[0]))
    tab = open_page(any_profile, server, tmp_path, text)
    status = "document.getElementById('status').textContent"
    wait_until(lambda: "bin/aphlict start" in tab.evaluate(status), "what to do")


def test_the_snippet_of_the_readme_listens(
    any_profile: Profile, server: Installation, tmp_path: Path
) -> None:
    [html] = [example.text for example in examples(ROOT / "README.md", "html")]
    watch = "<script>window.said = []; console.log = (text) => said.push(text);</script>"
    tab = open_page(any_profile, server, tmp_path, f"<!doctype html>{watch}{html}")
    wait_until(lambda: server.publish("demo", text="hello")["matched"], "a subscription")
    wait_until(lambda: tab.evaluate("said").count("hello"), "the message")
