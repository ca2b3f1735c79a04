"""GET /console: its files, their header fields, and who receives them and the data of the page."""

import asyncio
import json
from base64 import b64encode
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import pytest

from aphlict.server.console_files import TYPES, ConsoleFiles, is_console
from tests.support.certificates import self_signed
from tests.support.curl import curl
from tests.support.nodes import RunningNode, receive, running_node, subscribed

SECRET, ANOTHER = "a-secret-of-many-letters", "another-secret-of-many-letters"
PATHS = ["/console", "/overview"]
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' data:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
MESSAGE = json.dumps({"subscribers": ["a"], "text": "a test"})


def basic(password: str) -> str:
    """The field that a browser sends once its user has typed the secret."""
    return f"Authorization: Basic {b64encode(f'admin:{password}'.encode()).decode()}"


class Response(NamedTuple):
    """A response as it was received."""

    status: int
    head: str
    body: bytes


async def send(
    node: RunningNode, start: str, *fields: str, body: str = "", address: str = "127.0.0.1"
) -> Response:
    """Send a request byte by byte as given, and read until the server closes the connection."""
    reader, writer = await asyncio.open_connection(address, node.admin_port)
    length = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{start} HTTP/1.1", *fields, *length, "Connection: close", "", body]
    writer.write("\r\n".join(lines).encode("latin-1"))
    head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return Response(int(head.split()[1]), head.decode("latin-1"), rest)


def host(node: RunningNode) -> str:
    return f"Host: localhost:{node.admin_port}"


def origin(node: RunningNode, scheme: str = "http") -> str:
    return f"Origin: {scheme}://localhost:{node.admin_port}"


def code(response: Response) -> object:
    return json.loads(response.body)["code"]


# Files


async def test_the_page_and_its_files() -> None:
    async with running_node() as node:
        url = f"http://127.0.0.1:{node.admin_port}/console"
        folder = Path(str(files("aphlict"))) / "console"
        for path in folder.iterdir():
            if path.suffix not in TYPES:
                continue
            answer = await curl(url if path.name == "index.html" else f"{url}/{path.name}")
            assert (answer.status, answer.body) == (200, path.read_bytes())
            assert answer.headers["content-type"] == TYPES[path.suffix]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert "access-control-allow-origin" not in answer.headers
            rules = (
                rule.strip().partition(" ") for rule in answer.headers["content-security-policy"].split(";")
            )
            assert {name: value for name, _, value in rules} == POLICY


async def test_nothing_else_is_served() -> None:
    async with running_node() as node:
        for path in (
            *(
                "/console/",
                "/console/index.html",
                "/console/nothing.js",
                "/console/src",
                "/consoles",
                "/Console",
            ),
            *("/console/../console", "/console/..%2f..%2fnode.py", "/console/%2e%2e/node.py", "//console"),
            *("/console/../../setup.cfg", "/console\\index.html", "/console/index.html%00.js", "/console%2f"),
        ):
            response = await send(node, f"GET {path}", host(node))
            assert (response.status, code(response)) == (404, "not_found"), path


def test_which_files_are_served() -> None:
    console = ConsoleFiles({"index.html": b"", "a.js": b"", "a.ts": b"", "README": b"", "package.json": b""})
    assert sorted(console.paths) == ["/console", "/console/a.js"]
    assert not is_console("/consoles")


async def test_a_browser_that_has_the_page() -> None:
    async with running_node() as node:
        url = f"http://127.0.0.1:{node.admin_port}/console"
        first = await curl(url)
        again = await curl(url, "-H", f"If-None-Match: {first.headers['etag']}")
        assert (again.status, again.body) == (304, b"")
        assert (await curl(url, "-H", 'If-None-Match: "another"')).status == 200


@pytest.mark.parametrize("path", PATHS)
async def test_methods(path: str) -> None:
    async with running_node() as node:
        url = f"http://127.0.0.1:{node.admin_port}{path}"
        head = await curl(url, "-I")
        assert (head.status, head.body) == (200, b"")
        assert int(head.headers["content-length"]) > 0
        refused = await curl(url, "-d", "{}")
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
        assert refused.json["code"] == "method_not_allowed"


async def test_data_is_not_stored() -> None:
    async with running_node() as node:
        for path in ("/overview", "/trace?id=x"):
            answer = await curl(f"http://127.0.0.1:{node.admin_port}{path}")
            assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-content-type-options"] == "nosniff"


# Access


@pytest.mark.parametrize("path", PATHS)
async def test_a_browser_asks_for_the_secret(path: str) -> None:
    async with running_node(admin={"admin.secret": SECRET}) as node:
        response = await send(node, f"GET {path}", host(node), "Sec-Fetch-Site: none")
        assert (response.status, code(response)) == (401, "unauthorized")
        challenges = [line for line in response.head.split("\r\n") if line.startswith("WWW-Authenticate: ")]
        assert [line.split()[1] for line in challenges] == ["Bearer", "Basic"], "one line each"
        for field in (basic(SECRET), f"Authorization: Bearer {SECRET}"):
            assert (await send(node, f"GET {path}", host(node), field)).status == 200
        for field in (basic(ANOTHER), basic(""), f"Authorization: Basic {SECRET}"):
            assert (await send(node, f"GET {path}", host(node), field)).status == 401


async def test_the_secret_for_metrics_opens_no_console() -> None:
    async with running_node(admin={"admin.secret": SECRET, "metrics.secret": ANOTHER}) as node:
        for path, status in (("/metrics", 200), ("/overview", 401), ("/console", 401), ("/trace?id=x", 401)):
            for field in (basic(ANOTHER), f"Authorization: Bearer {ANOTHER}"):
                assert (await send(node, f"GET {path}", host(node), field)).status == status
        response = await send(node, "POST /", host(node), basic(ANOTHER), body=MESSAGE)
        assert response.status == 401


async def test_the_page_publishes() -> None:
    async with running_node(admin={"admin.secret": SECRET}) as node:
        browser = await subscribed(node.url(), "a")
        for more in ([], ["Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"]):
            fields = [host(node), origin(node), basic(SECRET), *more]
            response = await send(node, "POST /", *fields, body=MESSAGE)
            assert json.loads(response.body)["matched"] == 1
            assert "access-control" not in response.head.lower()
            assert (await receive(browser, 1))[0]["text"] == "a test"
        assert (await send(node, "POST /", host(node), origin(node), body=MESSAGE)).status == 401


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["Origin: https://evil.example"], "cross_site_request"),
        (["Origin: null"], "cross_site_request"),  # a sandboxed frame, a data: URL
        (["Origin: http://localhost:1"], "cross_site_request"),  # another server of this machine
        (["Origin: https://localhost"], "cross_site_request"),
        (["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], "cross_site_request"),  # a link, a frame
        (["Sec-Fetch-Site: same-site", "Sec-Fetch-Dest: iframe"], "cross_site_request"),
        (["Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image"], "cross_site_request"),
    ],
)
@pytest.mark.parametrize(
    "start", ["GET /console", "GET /overview", "GET /trace?id=x", "GET /metrics", "POST /"]
)
async def test_other_pages_have_no_access(start: str, fields: list[str], expected: str) -> None:
    """Not even if the browser adds the secret, which it remembers."""
    async with running_node(admin={"admin.secret": SECRET}) as node:
        body = MESSAGE if start == "POST /" else ""
        response = await send(node, start, host(node), basic(SECRET), *fields, body=body)
        assert (response.status, code(response)) == (403, expected)
        assert "www-authenticate" not in response.head.lower(), "the user is not asked for a secret"
        assert "access-control" not in response.head.lower()
        assert node.node.hub.counters.messages_in == 0


@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("start", ["GET /console", "GET /overview", "POST /"])
async def test_dns_rebinding(start: str, listen: str) -> None:
    async with running_node(admin={"listen": listen}) as node:
        name = f"evil.example:{node.admin_port}"
        fields = [f"Host: {name}", *([f"Origin: http://{name}"] if start == "POST /" else [])]
        response = await send(node, start, *fields, body=MESSAGE if start == "POST /" else "")
        assert (response.status, code(response)) == (403, "host_not_allowed")
        assert node.node.hub.counters.messages_in == 0


async def test_two_fields_are_not_one() -> None:
    async with running_node() as node:
        for fields in (
            [host(node), origin(node), "Origin: https://evil.example"],
            [host(node), "Origin: https://evil.example", origin(node)],
            [host(node), origin(node), origin(node)],
            [host(node), origin(node), "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"],
        ):
            response = await send(node, "POST /", *fields, body=MESSAGE)
            assert (response.status, code(response)) == (403, "cross_site_request")
        response = await send(node, "POST /", host(node), "Host: evil.example", origin(node), body=MESSAGE)
        assert response.status == 400


async def test_a_target_with_a_host_of_its_own() -> None:
    """RFC 9112, 3.2.2: a complete URL. It is not what `Origin` is compared with."""
    async with running_node() as node:
        target = f"POST http://localhost:{node.admin_port}/"
        fields = ["Host: evil.example", origin(node)]
        assert (await send(node, target, *fields, body=MESSAGE)).status == 403


async def test_a_page_that_a_network_replaced(tmp_path: Path) -> None:
    """Without TLS, anyone between can serve pages in the name of this server."""
    identity = self_signed().write(tmp_path).settings()
    async with running_node(admin=identity) as node:
        url = f"https://localhost:{node.admin_port}/"
        for scheme, status in (("https", 200), ("http", 403)):
            answer = await curl(url, "-k", "-d", MESSAGE, "-H", origin(node, scheme))
            assert answer.status == status


async def test_behind_a_proxy_that_terminates_tls() -> None:
    async with running_node(admin={"admin.hosts": ["ops.example.org"]}) as node:
        for name in ("ops.example.org", "ops.example.org:8443"):
            fields = [f"Host: {name}", f"Origin: https://{name}", "Sec-Fetch-Site: same-origin"]
            assert (await send(node, "POST /", *fields, body=MESSAGE)).status == 200
        fields = ["Host: ops.example.org", "Origin: https://other.example.org"]
        assert (await send(node, "POST /", *fields, body=MESSAGE)).status == 403
