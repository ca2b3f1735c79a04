"""Who may use the console: whoever has the secret, or is let through by a proxy; and pages of other origins never."""

from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.browser.chromium import ChromiumProfile
from tests.browser.console_page import Console, open_console
from tests.browser.driving import Profile
from tests.browser.page import page_server
from tests.docs.pages import ROOT, examples
from tests.proxies.nginx import nginx
from tests.proxies.programs import free_port
from tests.support.browsing import listening_to, receive
from tests.support.installation import Installation, installed, running_server
from tests.support.waiting import wait_until

SECRET = "ia9ohQuahyeiS7nieheP"

# What the page of another origin tries: what each attempt returns if it is refused or sees nothing.
READ = "(url) => fetch(url).then((answer) => answer.text(), () => 'refused')"
READ_WITH_CREDENTIALS = (
    "(url) => fetch(url, { credentials: 'include' }).then((answer) => answer.text(), () => 'refused')"
)
POST_BLINDLY = """(url) => fetch(url, {
  method: "POST", mode: "no-cors", credentials: "include", body: '{"subscribers": ["demo"], "text": "forged"}',
}).then(({ type }) => type == "opaque" ? "refused" : type, () => "refused")"""
POST_BY_FORM = """(url) => new Promise((done) => {
  document.body.innerHTML = `<iframe name="target"></iframe><form target="target" method="post" enctype="text/plain">
    <input name='{"subscribers": ["demo"], "text": "forged", "x": "' value='"}'></form>`;
  document.querySelector("iframe").onload = () => done("refused");
  document.querySelector("form").action = url;
  document.querySelector("form").submit();
})"""
FRAME = """(url) => new Promise((done) => {
  const frame = document.createElement("iframe");
  const look = () => frame.contentDocument?.body?.textContent || "refused";
  frame.onload = () => done(look());
  frame.src = url;
  document.body.append(frame);
})"""
OPEN = """async (url) => {
  const opened = window.open(url);
  await new Promise((done) => setTimeout(done, 1000));
  try {
    return opened?.document.body.textContent || "refused";
  } catch {
    return "refused";
  }
}"""
SCRIPT = "(url) => import(url).then(() => 'loaded', () => 'refused')"


@pytest.fixture
def secret_server(tmp_path: Path) -> Iterator[Installation]:
    """A server with `admin.secret`."""
    with installed(tmp_path) as server:
        write(server, SECRET)
        server.start()
        yield server


def write(server: Installation, secret: str) -> None:
    """Write the configuration with a secret."""
    client = {"type": "client", "port": server.client_port, "listen": "127.0.0.1"}
    server.write(servers=[client, {"type": "admin", "port": server.admin_port, "admin.secret": secret}])


def test_a_browser_presents_the_secret(any_profile: Profile, secret_server: Installation) -> None:
    console = open_console(any_profile, secret_server, credentials=f"anybody:{SECRET}@").wait()
    with listening_to(secret_server.client_port, "demo") as client:
        console.submit("publish-form", channel="demo", text="with the secret")
        assert receive(client, 1)[0]["text"] == "with the secret"
        wait_until(lambda: console.text("receipts"), "the receipt")
    assert console.problems == []


def test_a_secret_that_is_replaced(profile: ChromiumProfile, secret_server: Installation) -> None:
    """The page says so and stops; the browser does not ask for the secret again and again."""
    console = open_console(profile, secret_server, credentials=f"anybody:{SECRET}@").wait()
    write(secret_server, f"{SECRET}2")
    secret_server.stop()
    secret_server.start()
    wait_until(lambda: "admin.secret" in console.text("reach"), "the reason")
    assert console.level == "error"
    before = console.tab.evaluate("overviews")
    assert console.tab.evaluate("new Promise((done) => setTimeout(() => done(overviews), 5000))") == before


@pytest.mark.parametrize("has_secret", [False, True])
def test_a_page_of_another_origin(any_profile: Profile, tmp_path: Path, *, has_secret: bool) -> None:
    """It reads nothing and publishes nothing, even if the browser knows the secret and the console is open."""
    with installed(tmp_path) as server, page_server("about:blank") as address:
        if has_secret:
            write(server, SECRET)
        server.start()
        credentials = f"anybody:{SECRET}@" if has_secret else ""
        console = open_console(any_profile, server, credentials=credentials).wait()
        base = f"http://127.0.0.1:{server.admin_port}"
        other = any_profile.new_tab(address.replace("127.0.0.1", "localhost"))
        same_site = any_profile.new_tab(address)
        for tab in (other, same_site):
            tab.show()
            for attempt in (READ, READ_WITH_CREDENTIALS, FRAME, OPEN):
                assert tab.evaluate(attempt, f"{base}/console") == "refused", attempt
                assert tab.evaluate(attempt, f"{base}/overview") == "refused", attempt
            assert tab.evaluate(SCRIPT, f"{base}/console/console.js") == "refused"
            for attempt in (POST_BLINDLY, POST_BY_FORM):
                assert tab.evaluate(attempt, f"{base}/") == "refused", attempt
        console.tab.show()
        wait_until(
            lambda: "admin.pages" in str(console.rows("counters-table")), "the refusals on the console"
        )
        assert console.figure("Messages since the start").startswith("0,")


def test_dns_rebinding(profile: ChromiumProfile, tmp_path: Path) -> None:
    """A page whose name resolves to the server is of the same origin as its requests."""
    with running_server(tmp_path) as server:
        tab = profile.new_tab("about:blank")
        tab.command("Page.navigate", url=f"http://rebound.example:{server.admin_port}/console")
        wait_until(lambda: "host_not_allowed" in tab.evaluate("document.body.textContent"), "the refusal")
        publish = POST_BLINDLY.replace('"opaque"', '"basic"')
        tab.evaluate(publish, f"http://rebound.example:{server.admin_port}/")
        assert server.status()["messages.in"] == 0


def example_of_nginx(server: Installation, port: int) -> str:
    """The example of the manual, with other ports and without TLS."""
    [example] = examples(ROOT / "docs" / "monitoring.md", "nginx")
    changes = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port};",
        "console.example.org": "rebound.example",
        "/etc/nginx/": "",
        "127.0.0.1:22281": f"127.0.0.1:{server.admin_port}",
    }
    text = example.text
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return "\n".join(line for line in text.splitlines() if "ssl_" not in line)


def test_behind_nginx(profile: ChromiumProfile, tmp_path: Path) -> None:
    """The example of the manual: nginx authenticates, and the page works under a public name."""
    with installed(tmp_path / "server") as server:
        client = {"type": "client", "port": server.client_port, "listen": "127.0.0.1"}
        admin = {"type": "admin", "port": server.admin_port, "admin.hosts": ["rebound.example"]}
        server.write(servers=[client, admin])
        server.start()
        port, passwords = free_port(), {"aphlict-console.htpasswd": "anna:{PLAIN}Jaim8Eephee0\n"}
        with (
            nginx(example_of_nginx(server, port), port, passwords),
            listening_to(server.client_port, "demo") as receiver,
        ):
            tab = profile.new_tab("about:blank")
            with pytest.raises(HTTPError, match="401"):
                urlopen(f"http://127.0.0.1:{port}/console", timeout=5)
            address = f"http://anna:Jaim8Eephee0@rebound.example:{port}/console"
            tab.command("Page.navigate", url=address)
            console = Console(tab, address)
            wait_until(lambda: tab.evaluate("document.getElementById('updated')?.textContent"), "an overview")
            console.submit("publish-form", channel="demo", text="through nginx")
            assert receive(receiver, 1)[0]["text"] == "through nginx"
            wait_until(lambda: console.text("receipts"), "the receipt")
            tab.evaluate("document.querySelector('#receipts a').click()")
            assert console.codes() == ["written"]
