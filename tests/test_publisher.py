"""Publishing from a backend, with servers that are unreachable, hang, or reject the message."""

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

import aphlict
from aphlict import InvalidMessage, PublishFailed
from tests.cluster.nodes import FakeNode, reply
from tests.support.certificates import Authority, root
from tests.support.nodes import receive, running_node, subscribed

CLOSED_PORT = "http://127.0.0.1:1/"


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts connections, and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def url(node: FakeNode) -> str:
    return f"http://127.0.0.1:{node.port}/"


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import aphlict, sys; print(sorted({'asyncio', 'http.client', 'tornado', 'ssl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


async def test_a_message_reaches_a_subscriber() -> None:
    async with running_node() as node:
        client = await subscribed(node.url("/~acme/"), "a")
        server = f"http://127.0.0.1:{node.admin_port}"
        receipt = await aphlict.publish_async(
            {"text": "hello"}, ["a", "b"], servers=[server], instance="acme"
        )
        assert receipt.matched == 1
        assert not receipt.duplicate
        message = (await receive(client, 1))[0]
        assert message == {"text": "hello", "subscribers": ["a"], "uniqueID": receipt.unique_id}
        again = {"uniqueID": receipt.unique_id, "subscribers": ["a"]}
        assert (await aphlict.publish_async(again, servers=[server], instance="acme")).duplicate


async def test_the_next_server_is_tried_if_one_is_unreachable() -> None:
    async with running_node() as node:
        alive = f"http://127.0.0.1:{node.admin_port}/"
        for _ in range(10):
            receipt = await aphlict.publish_async({}, ["a"], servers=[CLOSED_PORT, alive, CLOSED_PORT])
            assert receipt.fingerprint == node.node.fingerprint


async def test_servers_are_tried_in_random_order() -> None:
    async with FakeNode("one").start() as one, FakeNode("two").start() as two:
        servers = [url(one), url(two)]
        asked = {(await aphlict.publish_async({}, ["a"], servers=servers)).fingerprint for _ in range(50)}
        assert asked == {"one", "two"}


@pytest.mark.parametrize(
    ("status", "code"), [(503, "overloaded"), (401, "unauthorized"), (403, "host_not_allowed")]
)
async def test_a_failure_has_the_code_of_the_response(status: int, code: str) -> None:
    async with FakeNode("one").start() as node:
        node.respond = lambda _request: reply(status, error="not now", code=code)
        with pytest.raises(PublishFailed, match=f"{status}: not now") as failed:
            await aphlict.publish_async({}, ["a"], servers=[url(node), CLOSED_PORT])
        assert failed.value.code == code


@pytest.mark.parametrize("servers", [[], [CLOSED_PORT]])
def test_a_failure_without_a_response_has_a_code_of_its_own(servers: list[str]) -> None:
    with pytest.raises(PublishFailed) as failed:
        aphlict.publish({}, ["a"], servers=servers)
    assert failed.value.code == "publish_failed"


async def test_a_response_without_a_code_is_that_of_another_program() -> None:
    async with FakeNode("one").start() as node:
        node.respond = lambda _request: reply(502)
        with pytest.raises(PublishFailed, match="502") as failed:
            await aphlict.publish_async({}, ["a"], servers=[url(node)])
        assert failed.value.code == "publish_failed"


async def test_a_node_js_server_responds_with_its_fingerprint_only() -> None:
    async with FakeNode("one").start() as node:
        node.respond = lambda _request: reply(200, fingerprint="one")
        receipt = await aphlict.publish_async({"uniqueID": "u"}, ["a"], servers=[url(node)])
        assert receipt == ("one", "u", None, False)


async def test_https_is_verified(tmp_path: Path) -> None:
    authority = root()
    files = authority.issue().write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    async with FakeNode("one", context).start() as node:
        server = f"https://localhost:{node.port}/"
        with pytest.raises(PublishFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await aphlict.publish_async({}, ["a"], servers=[server])
        trust = ssl.create_default_context(cadata=authority.root.decode())
        receipt = await aphlict.publish_async({}, ["a"], servers=[server], ssl_context=trust)
        assert receipt.fingerprint == "one"


async def test_no_further_server_is_tried_with_an_invalid_message() -> None:
    async with running_node() as node:
        servers = [f"http://127.0.0.1:{node.admin_port}/"] * 3
        with pytest.raises(InvalidMessage) as failed:
            await aphlict.publish_async({"text": "no subscribers"}, servers=servers)
        assert failed.value.code == "no_subscribers"
        assert (await node.status())["messages.in"] == 0


@pytest.mark.parametrize("unique_id", [None, ""])
async def test_an_empty_unique_id_is_replaced_before_the_message_leaves(unique_id: str | None) -> None:
    async with FakeNode("one").start() as node:
        receipt = await aphlict.publish_async({"uniqueID": unique_id}, ["a"], servers=[url(node)])
        [message] = node.messages
        assert message["uniqueID"] == receipt.unique_id
        assert receipt.unique_id.strip()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("subscribers", "demo"),
        ("subscribers", b"demo"),
        ("servers", "http://127.0.0.1:22281/"),
        ("servers", b"http://127.0.0.1:22281/"),
    ],
)
def test_a_string_in_the_place_of_a_list_is_a_type_error(argument: str, value: str | bytes) -> None:
    arguments: dict[str, Any] = {"subscribers": ["a"], "servers": [CLOSED_PORT], argument: value}
    with pytest.raises(TypeError, match=argument):
        aphlict.publish({}, **arguments)


@pytest.mark.parametrize("subscribers", ["demo", b"demo", bytearray(b"demo")])
def test_a_string_in_the_subscribers_of_a_message_is_a_type_error(subscribers: object) -> None:
    with pytest.raises(TypeError, match="subscribers"):
        aphlict.publish({"subscribers": subscribers}, servers=[CLOSED_PORT])


def test_a_server_that_hangs_delays_no_longer_than_the_timeout(silent: str) -> None:
    started = time.monotonic()
    with pytest.raises(PublishFailed, match="timed out"):
        aphlict.publish({}, ["a"], servers=[silent] * 20, timeout=0.3)
    assert time.monotonic() - started < 4


@pytest.fixture(scope="module")
def authority() -> Authority:
    """The authority of the certificates of slow servers."""
    return root()


@pytest.fixture(params=["http", "https"])
def slow_server(
    request: pytest.FixtureRequest, authority: Authority, tmp_path: Path
) -> Iterator[Callable[[bytes, bytes], str]]:
    """Servers that send the start of a response immediately, and one more piece every few milliseconds."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = authority.issue().write(tmp_path)
    context.load_cert_chain(files.cert, files.key)
    ended = threading.Event()

    def serve(listener: socket.socket, beginning: bytes, piece: bytes) -> None:
        connection: socket.socket
        connection, _ = listener.accept()
        if request.param == "https":
            connection = context.wrap_socket(connection, server_side=True)
        with connection, suppress(OSError):
            connection.sendall(beginning)
            while not ended.wait(0.005):
                connection.sendall(piece)

    with ExitStack() as stack:

        def start(beginning: bytes, piece: bytes) -> str:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            listener.settimeout(5)
            thread = threading.Thread(target=serve, args=(listener, beginning, piece))
            thread.start()
            stack.callback(thread.join)
            return f"{request.param}://localhost:{listener.getsockname()[1]}/"

        yield start
        ended.set()


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-More: follows\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n", b"{"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"{"),
    ],
)
def test_a_slow_response_delays_no_longer_than_the_timeout(
    slow_server: Callable[[bytes, bytes], str], authority: Authority, beginning: bytes, piece: bytes
) -> None:
    trust = ssl.create_default_context(cadata=authority.root.decode())
    server = slow_server(beginning, piece)
    started = time.monotonic()
    with pytest.raises(PublishFailed, match="timed out"):
        aphlict.publish({}, ["a"], servers=[server], timeout=0.2, ssl_context=trust)
    assert time.monotonic() - started < 1


async def test_all_addresses_of_a_name_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_node() as node:
        port = node.admin_port
        both = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: both)
        receipt = await aphlict.publish_async({}, ["a"], servers=[f"http://localhost:{port}/"])
        assert receipt.fingerprint == node.node.fingerprint


async def test_the_event_loop_is_not_blocked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        publishing = asyncio.ensure_future(aphlict.publish_async({}, ["a"], servers=[server], timeout=0.5))
        ticks = 0
        while not publishing.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 10
        assert isinstance(publishing.exception(), PublishFailed)
