"""Access to an admin port: no web pages, no foreign host names, and the secret if one is set."""

import json
from base64 import b64encode
from typing import Any

import pytest

from aphlict.config.settings import ServerSettings
from aphlict.errors import CrossSiteRequest, HostNotAllowed, Unauthorized
from aphlict.server.access import AdminAccess, HostNames, is_loopback
from tests.support.curl import curl
from tests.support.nodes import RunningNode, receive, running_node, subscribed

SECRET, ANOTHER = "a secret of many letters".replace(" ", "-"), "another-secret-of-many-letters"
NAMES = ("web1", "web1.example.com")
CHALLENGES = 'Bearer realm="aphlict", Basic realm="aphlict", charset="UTF-8"'


def make_access(**keys: Any) -> AdminAccess:
    """The access check of an admin port on a machine with NAMES."""
    server = ServerSettings(type="admin", port=1, **keys)
    return AdminAccess(server, HostNames(server, NAMES))


def check(access: AdminAccess, headers: dict[str, str], local_address: str = "127.0.0.1") -> None:
    """Check a request that one of this machine's addresses received."""
    access.check(headers, lambda: local_address)


def at(node: RunningNode, path: str = "/") -> str:
    return f"http://127.0.0.1:{node.admin_port}{path}"


# Web pages


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:22281"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "same-origin", "origin": "http://evil.example:22281"},
        {"sec-fetch-site": "none, same-origin"},
    ],
)
@pytest.mark.parametrize("host", [{}, {"host": "localhost:22281"}])
def test_a_page_is_rejected(headers: dict[str, str], host: dict[str, str]) -> None:
    with pytest.raises(CrossSiteRequest):
        check(make_access(), {**headers, **host})


@pytest.mark.parametrize("headers", [{}, {"sec-fetch-site": "none"}, {"sec-fetch-site": "same-origin"}])
def test_other_requests_are_accepted(headers: dict[str, str]) -> None:
    check(make_access(), headers)


# The console: pages of the port itself

TLS = {"ssl_key": "key", "ssl_cert": "cert"}


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:22281", "localhost:22281"),
        ("http://LOCALHOST:22281", "localhost:22281"),
        ("http://127.0.0.1:22281", "127.0.0.1:22281"),
        ("http://[::1]:22281", "[::1]:22281"),
        ("http://10.0.0.5:22281", "10.0.0.5:22281"),
        ("http://web1.example.com", "web1.example.com"),
        ("http://web1.example.com", "web1.example.com:80"),
        ("https://web1.example.com", "web1.example.com:443"),
        ("https://console.example.com:8443", "console.example.com:8443"),
    ],
)
@pytest.mark.parametrize("site", [{}, {"sec-fetch-site": "same-origin"}])
@pytest.mark.parametrize("local_address", ["127.0.0.1", "10.0.0.5"])
def test_a_page_of_the_port_itself(origin: str, host: str, site: dict[str, str], local_address: str) -> None:
    access = make_access(listen="0.0.0.0", admin_hosts=("console.example.com",))
    check(access, {"origin": origin, "host": host, **site}, local_address)


@pytest.mark.parametrize(
    ("origin", "host", "site"),
    [
        ("http://localhost:22280", "localhost:22281", {}),  # the client port
        ("http://localhost", "localhost:22281", {}),
        ("http://localhost:22281", "localhost", {}),
        ("http://localhost:22281", "127.0.0.1:22281", {}),
        ("http://localhost:22281", "", {}),
        ("http://", "", {}),
        ("", "", {}),
        ("null", "null", {}),
        ("localhost:22281", "localhost:22281", {}),
        ("ftp://localhost:22281", "localhost:22281", {}),
        ("http://localhost:22281/", "localhost:22281", {}),
        ("http://evil@localhost:22281", "localhost:22281", {}),
        ("http://localhost:22281 http://evil.example", "localhost:22281", {}),
        ("http://localhost:22281, http://evil.example", "localhost:22281", {}),
        ("http://localhost:22281, http://localhost:22281", "localhost:22281", {}),
        ("http://localhost:22281", "localhost:22281", {"sec-fetch-site": "same-site"}),
        ("http://localhost:22281", "localhost:22281", {"sec-fetch-site": "cross-site"}),
        ("http://localhost:22281", "localhost:22281", {"sec-fetch-site": "none"}),
        ("http://localhost:22281", "localhost:22281", {"sec-fetch-site": ""}),
        ("http://localhost:22281", "localhost:22281", {"sec-fetch-site": "same-origin, same-origin"}),
    ],
)
def test_a_page_that_only_resembles_one_of_the_port(origin: str, host: str, site: dict[str, str]) -> None:
    with pytest.raises(CrossSiteRequest):
        check(make_access(), {"origin": origin, "host": host, **site})


def test_with_tls_a_page_without_it_is_another() -> None:
    headers = {"host": "localhost:22281"}
    check(make_access(**TLS), {**headers, "origin": "https://localhost:22281"})
    with pytest.raises(CrossSiteRequest):
        check(make_access(**TLS), {**headers, "origin": "http://localhost:22281"})


@pytest.mark.parametrize(
    "name", ["evil.example", "web1.example.com.evil.example", "evil.local", "evil.lan", "evil", "a.localhost"]
)
@pytest.mark.parametrize("local_address", ["127.0.0.1", "10.0.0.5"])
def test_a_page_whose_name_was_pointed_at_this_server(name: str, local_address: str) -> None:
    """DNS rebinding: the page has the origin of the port, under a name that others may give it. In a private network
    that is any name without a dot, too."""
    headers = {"origin": f"http://{name}:22281", "host": f"{name}:22281", "sec-fetch-site": "same-origin"}
    with pytest.raises(HostNotAllowed):
        check(make_access(listen="0.0.0.0"), headers, local_address)


@pytest.mark.parametrize("local_address", ["127.0.0.1", "10.0.0.5"])
def test_names_are_checked_for_the_console_everywhere(local_address: str) -> None:
    access = make_access(listen="0.0.0.0")
    access.check({"host": "web1.example.com"}, lambda: local_address, is_console=True)
    with pytest.raises(HostNotAllowed):
        access.check({"host": "evil.example"}, lambda: local_address, is_console=True)


async def test_a_page_cannot_publish() -> None:
    async with running_node() as node:
        browser = await subscribed(node.url(), "a")
        for header in ("Origin: https://evil.example", "Sec-Fetch-Site: cross-site"):
            for options in ((), ("-H", "Transfer-Encoding: chunked")):
                answer = await curl(at(node), "-d", '{"subscribers": ["a"]}', "-H", header, *options)
                assert (answer.status, answer.json["code"]) == (403, "cross_site_request")
            assert (await curl(at(node, "/status/"), "-H", header)).status == 403
        status = await node.status()
        assert status["messages.in"] == 0
        assert status["refused"]["admin.pages"] == 6
        await node.publish({"subscribers": ["a"], "text": "ours"})
        assert (await receive(browser, 1))[0]["text"] == "ours"


async def test_a_page_is_rejected_before_its_body_is_read() -> None:
    async with running_node() as node:
        headers = ("-H", "Origin: https://evil.example", "-H", "Expect: 100-continue")
        answer = await curl(at(node), "-d", "x" * 100_000, *headers)
        assert answer.status == 403


# Names


@pytest.mark.parametrize(
    "host",
    [
        "",
        "127.0.0.1",
        "127.0.0.1:22281",
        "10.1.2.3:22281",
        "[::1]:22281",
        "[2001:db8::1]",
        "localhost:22281",
        "LOCALHOST",
        "web1",
        "web1.example.com:22281",
        "WEB1.example.com.",
        "aphlict:22281",
        "notify.internal",
        "a.localhost",
        "printer.home.arpa",
    ],
)
def test_names_that_an_attacker_cannot_register(host: str) -> None:
    check(make_access(), {"host": host})
    check(make_access(), {})


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:22281",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "web1.evil.example",
        "evil.com:22281",
        "a b.c",
        "evil.com:22281:1",
    ],
)
def test_names_that_an_attacker_can_register(host: str) -> None:
    with pytest.raises(HostNotAllowed):
        check(make_access(), {"host": host})


def test_names_are_checked_on_loopback_or_if_they_are_configured() -> None:
    everywhere = make_access(listen="0.0.0.0")
    check(everywhere, {"host": "notify1.example.org:22281"}, "10.0.0.5")
    for loopback in ("127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"):
        with pytest.raises(HostNotAllowed):
            check(everywhere, {"host": "notify1.example.org:22281"}, loopback)
    listed = make_access(listen="0.0.0.0", admin_hosts=("Notify1.example.org",))
    check(listed, {"host": "notify1.example.org:22281"}, "10.0.0.5")
    with pytest.raises(HostNotAllowed):
        check(listed, {"host": "evil.com:22281"}, "10.0.0.5")


def test_the_name_that_the_server_listens_on() -> None:
    check(make_access(listen="notify.example.org", admin_hosts=("x",)), {"host": "notify.example.org"})


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("notify.example.org", False),
    ],
)
def test_loopback(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


async def test_dns_rebinding() -> None:
    async with running_node() as node:
        for path, options in (("/status/", ()), ("/", ("-d", "{}"))):
            answer = await curl(at(node, path), "-H", "Host: evil.com:22281", *options)
            assert (answer.status, answer.json["code"]) == (403, "host_not_allowed")
        assert (await node.status())["refused"]["admin.hosts"] == 2


async def test_dns_rebinding_to_a_server_on_all_interfaces() -> None:
    async with running_node(admin={"listen": "0.0.0.0"}) as node:
        assert (await curl(at(node, "/status/"), "-H", "Host: evil.com:22281")).status == 403


async def test_names_of_the_cluster_are_accepted() -> None:
    async with running_node(cluster=[{"host": "notify.example.org", "port": 1}]) as node:
        assert (await curl(at(node, "/status/"), "-H", "Host: notify.example.org:22281")).status == 200


async def test_a_health_check_without_a_host() -> None:
    async with running_node() as node:
        assert (await curl(at(node, "/status/"), "--http1.0", "-H", "Host:")).status == 200


# Secrets


def basic(user: str, password: str) -> str:
    """The field of a browser."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


@pytest.mark.parametrize(
    "header",
    [
        f"Bearer {SECRET}",
        f"bearer {SECRET}",
        f"Bearer  {SECRET}",
        f"Bearer {ANOTHER}",
        basic("", SECRET),
        basic("anyone", ANOTHER),
        basic("é", SECRET),
        basic("anyone", SECRET).replace("Basic", "bAsIc "),
    ],
)
def test_right_secrets(header: str) -> None:
    check(make_access(admin_secret=f"{SECRET}\n{ANOTHER}"), {"authorization": header})


def test_a_secret_with_a_colon() -> None:
    secret = f":{SECRET}:"
    for header in (f"Bearer {secret}", basic("anyone", secret)):
        check(make_access(admin_secret=secret), {"authorization": header})


@pytest.mark.parametrize("path_is_of_metrics", [True, False])
def test_the_secret_for_metrics_as_a_password(path_is_of_metrics: bool) -> None:
    access = make_access(admin_secret=SECRET, metrics_secret=ANOTHER)
    headers = {"authorization": basic("prometheus", ANOTHER)}
    if path_is_of_metrics:
        access.check(headers, lambda: "127.0.0.1", reads_metrics=True)
    else:
        for is_console in (True, False):
            with pytest.raises(Unauthorized):
                access.check(headers, lambda: "127.0.0.1", is_console=is_console)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        SECRET,
        f"Basic {SECRET}",
        f"Bearer {SECRET}x",
        f"Bearer {SECRET[:-1]}",
        f"Bearer {SECRET}, Bearer {SECRET}",
        f"Bearer {SECRET}\n{ANOTHER}",
        "Bearer \xe9",
        basic("anyone", ""),
        basic(SECRET, ""),
        basic(SECRET, "x"),
        basic("anyone", f":{SECRET}"),
        basic("anyone", f"{SECRET}\n{ANOTHER}"),
        f"Basic {b64encode(SECRET.encode()).decode()}",
        f"Basic {b64encode(SECRET.encode()).decode()}=",
        "Basic",
        "Basic ",
        "Basic :",
        "Basic =",
        "Basic a",
        f"{basic('anyone', SECRET)}, {basic('anyone', SECRET)}",
        f"{basic('anyone', SECRET)} x",
        basic("anyone", SECRET).replace("Basic", "Bearer"),
        basic("anyone", SECRET).replace("Basic", "Digest"),
    ],
)
def test_wrong_secrets(header: str) -> None:
    with pytest.raises(Unauthorized):
        check(make_access(admin_secret=f"{SECRET}\n{ANOTHER}"), {"authorization": header})


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All secrets are compared, whichever matches, with a comparison whose time depends on the length only."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(shown: bytes, secret: bytes) -> bool:
        compared.append((shown, secret))
        return len(compared) == 1

    monkeypatch.setattr("hmac.compare_digest", compare)
    check(make_access(admin_secret=f"{SECRET}\n{ANOTHER}"), {"authorization": "Bearer x"})
    assert compared == [(b"x", SECRET.encode()), (b"x", ANOTHER.encode())]


async def test_a_script_does_not_open_the_dialog_of_the_browser() -> None:
    async with running_node(admin={"admin.secret": SECRET}) as node:
        answer = await curl(at(node, "/overview"), "-H", "X-Requested-With: fetch")
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="aphlict"'


async def test_a_rejection_does_not_reveal_the_secret(caplog: pytest.LogCaptureFixture) -> None:
    async with running_node(admin={"admin.secret": SECRET}) as node:
        for path, options in (
            ("/status/", ()),
            ("/nothing", ()),
            ("/", ("-d", '{"subscribers": ["a"]}')),
            ("/", ("-d", '{"subscribers": ["a"]}', "-H", "Transfer-Encoding: chunked")),
            ("/", ("-d", "{}", "-H", f"Authorization: Bearer {ANOTHER}")),
        ):
            answer = await curl(at(node, path), *options)
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == CHALLENGES
            assert list(answer.json) == ["error", "code"]
        status = (await curl(at(node, "/status/"), "-H", f"Authorization: Bearer {SECRET}")).json
        assert status["messages.in"] == 0
        assert status["refused"]["admin.secret"] == 5
    assert "admin.secret refused 127.0.0.1" in caplog.text


async def test_publishing_with_the_secret() -> None:
    async with running_node(admin={"admin.secret": SECRET}) as node:
        browser = await subscribed(node.url(), "a")
        for options in ((), ("-H", "Transfer-Encoding: chunked")):
            body = json.dumps({"subscribers": ["a"], "text": "ours"})
            answer = await curl(at(node), "-d", body, "-H", f"Authorization: Bearer {SECRET}", *options)
            assert answer.json["matched"] == 1
            assert (await receive(browser, 1))[0]["text"] == "ours"
