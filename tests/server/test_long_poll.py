"""Long polling, as curl receives it."""

import asyncio
import socket
from urllib.parse import quote

import msgspec

from aphlict.server import long_poll
from aphlict.server.write_buffer import BufferBudget
from tests.support.clocks import Clock
from tests.support.curl import Answer, curl
from tests.support.nodes import RunningNode, has_all, running_cluster, running_node
from tests.support.numbering import FakeOrigin
from tests.support.waiting import eventually, eventually_async


async def ask(node: RunningNode, query: str, *options: str, path: str = "/ws/poll") -> Answer:
    scheme = "https" if node.tls else "http"
    return await curl(f"{scheme}://localhost:{node.client_port}{path}?{query}", *options)


class Poller:
    """A client that polls as documented."""

    def __init__(self, *nodes: RunningNode, channels: str = "channel=a") -> None:
        self.nodes = nodes
        self.channels = channels
        self.last: str | None = None
        self.names: list[str] = []
        self.turn = 0

    async def poll(self, wait: float = 0) -> bool:
        """Poll the next node. Return whether no message can be missing."""
        after = "" if self.last is None else f"&after={quote(self.last)}"
        node = self.nodes[self.turn % len(self.nodes)]
        self.turn += 1
        answer = await ask(node, f"{self.channels}&wait={wait}{after}")
        assert answer.status == 200
        assert set(answer.json) == {"messages", "last", "recovered"}
        self.names += [message["uniqueID"] for message in answer.json["messages"]]
        self.last = answer.json["last"]
        recovered = answer.json["recovered"]
        assert isinstance(recovered, bool)
        return recovered


def message(name: str, *channels: str) -> dict[str, object]:
    return {"subscribers": channels or ["a"], "uniqueID": name}


async def test_a_poll_waits_for_a_message() -> None:
    async with running_node() as node:
        asked = asyncio.create_task(ask(node, "channel=a&channel=b"))
        await eventually(lambda: node.node.hub.connections == 1)
        await node.publish({"subscribers": ["a", "b", "c"], "uniqueID": "one", "text": "é"})
        answer = await asked
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store, no-transform"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.json["messages"] == [{"subscribers": ["a", "b"], "uniqueID": "one", "text": "é"}]
        assert answer.json["recovered"] is True
        assert node.node.hub.connections == 0
        assert (await node.status())["clients.total"] == 1


async def test_a_poll_without_messages_ends_after_its_wait() -> None:
    async with running_node() as node:
        answer = await asyncio.wait_for(ask(node, "channel=a&wait=0.3"), 5)
        assert answer.json["messages"] == []
        assert answer.json["recovered"] is True


async def test_nothing_is_lost_between_two_polls() -> None:
    async with running_node() as node:
        browser = Poller(node, channels="channel=a&channel=b")
        await node.publish(message("before"))
        await browser.poll()
        for n in range(4):
            await node.publish(message(f"{n}a", "a"), message(f"{n}both", "a", "b"), message(f"{n}c", "c"))
            assert await browser.poll(wait=30), "there is something: it answers at once"
            await node.publish(message(f"{n}between", "b"))
        assert await browser.poll()
        assert browser.names == [f"{n}{name}" for n in range(4) for name in ("a", "both", "between")]


async def test_a_batch_is_one_response() -> None:
    async with running_node() as node:
        browser = Poller(node, channels="channel=a&channel=b")
        waiting = asyncio.create_task(browser.poll(wait=30))
        await eventually(lambda: node.node.hub.connections == 1)
        await node.publish(*(message(str(n), "ab"[n % 2]) for n in range(10)))
        assert await waiting
        assert browser.names == [str(n) for n in range(10)]
        await browser.poll()
        assert len(browser.names) == 10


async def test_many_messages_are_spread_over_responses() -> None:
    async with running_node() as node:
        browser = Poller(node)
        await browser.poll()
        names = [str(n) for n in range(2 * long_poll.MAX_MESSAGES + 10)]
        await node.publish(*(message(name) for name in names))
        for count in (1, 2):
            assert await browser.poll(wait=30)
            assert browser.names == names[: count * long_poll.MAX_MESSAGES]
        assert await browser.poll(wait=30)
        assert browser.names == names


async def test_large_messages_are_spread_over_responses() -> None:
    async with running_node() as node:
        browser = Poller(node)
        await browser.poll()
        for n in range(4):
            await node.publish({**message(str(n)), "text": "x" * 200_000})
        for count in (2, 4):
            assert await browser.poll(wait=30)
            assert browser.names == [str(n) for n in range(count)]


async def test_any_node_continues_where_another_ended() -> None:
    async with running_cluster(2) as nodes:
        browser = Poller(*nodes)
        for _ in range(4):
            assert await browser.poll(), "an empty history"
        for n in range(6):
            await nodes[n // 2 % 2].publish(message(str(n)))
            await eventually_async(lambda n=n: has_all(nodes, n + 1))  # type: ignore[misc]
            await nodes[n % 2].publish(message(str(n)))  # as a publisher that did not get its receipt
            assert await browser.poll()
        assert browser.names == [str(n) for n in range(6)]


async def test_a_message_that_another_node_receives_later_is_not_repeated() -> None:
    other = FakeOrigin()
    async with running_cluster(2) as (first, second):
        for node in (first, second):
            await other.greet(node.admin_port)
        names = (first.node.fingerprint, second.node.fingerprint)
        browser = Poller(first, second)
        assert await browser.poll()
        assert await browser.poll()
        await other.send(first.admin_port, 1, touched=names)
        assert await browser.poll()
        waiting = asyncio.create_task(browser.poll(wait=20))
        await eventually(lambda: second.node.hub.connections == 1)
        await other.send(second.admin_port, 1, 2, touched=names)
        assert await waiting
        assert browser.names == ["m1", "m2"]


async def test_a_client_may_resume_with_a_unique_id() -> None:
    async with running_node() as node:
        for name in ("one", "two", "three"):
            await node.publish(message(name))
        for query in ("after=one", "after=one,two", "after=two&after=one", "after=gone&after=one"):
            answer = await ask(node, f"channel=a&{query}&wait=5")
            assert answer.json["recovered"] is True
            assert answer.json["messages"][-1]["uniqueID"] == "three"
            assert all(each["uniqueID"] != "one" for each in answer.json["messages"])


async def test_a_gap_is_reported_immediately() -> None:
    async with running_node() as node:
        await node.publish(message("one"))
        answer = await asyncio.wait_for(ask(node, "channel=a&after=gone"), 5)
        assert answer.json["recovered"] is False
        assert [each["uniqueID"] for each in answer.json["messages"]] == ["one"]
        answer = await ask(node, f"channel=a&wait=0&after={answer.json['last']}")
        assert answer.json["recovered"] is True
        assert answer.json["messages"] == []


async def test_an_invalid_wait() -> None:
    async with running_node() as node:
        for wait in ("61", "-1", "x", "nan", "inf", "1e999"):
            answer = await ask(node, f"channel=a&wait={wait}")
            assert (answer.status, answer.json["code"]) == (400, "bad_request")


async def test_polls_end_at_shutdown() -> None:
    async with running_node() as node:
        asked = asyncio.create_task(ask(node, "channel=a&wait=60"))
        await eventually(lambda: node.node.hub.connections == 1)
        stopping = asyncio.create_task(node.node.drain())
        answer = await asyncio.wait_for(asked, 5)
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert answer.json["messages"] == []
        await stopping


async def test_one_connection_serves_many_polls() -> None:
    async with running_node() as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.client_port)
        for n in range(5):
            writer.write(b"GET /poll?channel=a HTTP/1.1\r\nHost: x\r\n\r\n")
            await eventually(lambda: node.node.hub.connections == 1)
            await node.publish(message(str(n)))
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert "Connection: keep-alive" in head
            size = int(head.split("Content-Length: ")[1].split("\r\n")[0])
            assert f'"uniqueID":"{n}"'.encode() in await reader.readexactly(size)
        writer.close()


async def test_a_pipelined_request_ends_the_connection_after_the_response() -> None:
    async with running_node() as node:
        request = b"GET /poll?channel=a&wait=0 HTTP/1.1\r\nHost: x\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", node.client_port)
        writer.write(request + request)
        output = await asyncio.wait_for(reader.read(), 5)
        assert output.count(b"HTTP/1.1 200 OK") == 1
        writer.close()


async def test_a_response_is_not_mixed_with_an_unsent_one() -> None:
    async with running_node() as node:
        with await poll_slowly(node) as browser:
            await eventually(lambda: pool_of(node).used > 0)
            browser.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
            output = await read_to_end(browser)
        head, _, rest = output.partition(b"\r\n\r\n")
        size = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        assert msgspec.json.decode(rest[:size])["recovered"] is False
        head, _, page = rest[size:].partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert msgspec.json.decode(page) == {"state": "RUNNING"}
        await eventually(lambda: pool_of(node).used == 0)


async def test_a_long_response_is_sent_over_a_slow_line(clock: Clock) -> None:
    for end in (b"", b"Connection: close\r\n"):
        async with running_node(limits__handshake=0.5) as node:
            with await poll_slowly(node, end) as browser:
                began, size = clock.now, 0
                while size < 250_000:
                    data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(browser, 9_000), 5)
                    assert data, f"cut off after {size} bytes"
                    size += len(data)
                    clock.advance(node, 0.1)
                    await asyncio.sleep(0.01)  # in which the server may send more
                assert clock.now - began > 2.5


async def poll_slowly(node: RunningNode, field: bytes = b"") -> socket.socket:
    """Request a megabyte of missed messages from a socket with a small buffer."""
    for _ in range(4):
        await node.publish({"subscribers": ["a"], "text": "x" * 250_000})
    browser = socket.socket()
    browser.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    browser.connect(("127.0.0.1", node.client_port))
    browser.setblocking(False)
    browser.sendall(b"GET /poll?channel=a&after=x HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n")
    return browser


def pool_of(node: RunningNode) -> BufferBudget:
    pool = node.node.server.context.buffer_budget
    assert isinstance(pool, BufferBudget)
    return pool


async def read_to_end(sock: socket.socket) -> bytes:
    output = b""
    while data := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65536), 5):
        output += data
    return output


async def test_a_client_that_disconnects_leaves() -> None:
    async with running_node() as node:
        _, writer = await asyncio.open_connection("127.0.0.1", node.client_port)
        writer.write(b"GET /poll?channel=a HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: node.node.hub.connections == 1)
        writer.close()
        await eventually(lambda: node.node.hub.connections == 0)
        assert (await node.publish(message("one")))["matched"] == 0
