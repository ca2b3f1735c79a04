"""Peers that are unreachable, hang, reject or respond with garbage: cost, log lines, recovery."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from tornado.httputil import HTTPServerRequest

from aphlict.cluster.http_client import PeerConnection
from aphlict.cluster.outbox import PeerOptions
from aphlict.cluster.relay import Relay
from aphlict.config.settings import PeerSettings
from tests.cluster.messages import FAST, message, relay_to
from tests.cluster.nodes import HOST, FakeNode, NodeJsServer, Post, Reply, read_post, reply, started
from tests.support.waiting import eventually

BAD = "peer_bad_response"
IMPATIENT = replace(FAST, response_timeout=0.5)


def lines(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


def state(relay: Relay) -> object:
    return relay.status()[0]["state"]


async def down(relay: Relay, code: str) -> None:
    """Wait until the first peer is down, and check the code of the error."""
    await eventually(lambda: state(relay) == "down", "a peer that is down")
    assert relay.status()[0]["last_error_code"] == code


@asynccontextmanager
async def raw_server(answer: bytes, *, closes: bool = True) -> AsyncIterator[PeerSettings]:
    """A server that sends the same bytes to every client, HTTP or not."""

    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if closes:
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        yield PeerSettings(host=HOST, port=server.sockets[0].getsockname()[1])
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


# Away and back


async def test_an_unreachable_peer_receives_everything_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = FakeNode("B").start()
    await node.stop()
    async with node, relay_to(node.settings) as relay:
        for number in range(1000):
            relay.forward(message(str(number)))
        await down(relay, "peer_unreachable")
        node.start()
        await node.got(1000)
        assert node.texts == [str(number) for number in range(1000)]
        await eventually(lambda: state(relay) == "up")
    assert lines(caplog, "is unreachable") == [
        f"peer http://{HOST}:{node.port} is unreachable: connection refused"
    ]
    [back] = lines(caplog, "is up again")
    assert back.endswith(" s: 1000 queued messages were sent")


async def test_a_new_cause_is_logged_while_a_peer_is_unreachable(caplog: pytest.LogCaptureFixture) -> None:
    """It is started again, and now has a secret: what is in the log has to be what is wrong."""
    node = FakeNode("B").start()
    await node.stop()
    async with node, relay_to(node.settings) as relay:
        relay.forward(message("1"))
        await down(relay, "peer_unreachable")
        node.respond = lambda _request: reply(401, error="a secret is missing")
        node.start()
        await eventually(lambda: lines(caplog, "still unreachable"), "the other cause")
        assert [line.partition(": ")[2] for line in lines(caplog, "still unreachable")] == [
            "it responded 401: a secret is missing"
        ]
        node.respond = lambda _request: None
        await node.got(1)


async def test_a_peer_that_comes_and_goes_misses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with FakeNode("B").start() as node, relay_to(node.settings) as relay:
        for turn in range(3):
            relay.forward(message(f"up {turn}"))
            await node.got(2 * turn + 1)
            await node.stop()
            await eventually(lambda: state(relay) == "down")
            relay.forward(message(f"down {turn}"))
            node.start()
            await node.got(2 * turn + 2)
            await eventually(lambda: state(relay) == "up")
        assert node.texts == [f"{where} {turn}" for turn in range(3) for where in ("up", "down")]
        await node.stop()
        await eventually(lambda: state(relay) == "down")
    assert len(lines(caplog, "is unreachable")) == 4
    assert len(lines(caplog, "is up again")) == 3


async def test_a_restarted_peer_is_known_by_its_new_fingerprint(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        FakeNode("old").start() as node,
        FakeNode("C").start() as other,
        relay_to(node.settings, other.settings) as relay,
    ):
        relay.forward(message("1"))
        await node.got(1)
        await node.stop()
        node.fingerprint = "new"
        node.start()
        await eventually(lambda: relay.status()[0]["fingerprint"] == "new")
        relay.forward(message("2"))
        await other.got(2)
        assert "new" in other.messages[1]["touched"]
        assert "old" not in other.messages[1]["touched"]
        relay.forward(message("knows", touched=["new"]))
        relay.forward(message("does not know yet", touched=["old"]))
        await other.got(4)
        assert node.texts == ["1", "2"]
    assert lines(caplog, "is node new")


async def test_messages_that_a_restarted_peer_has_are_not_sent_again() -> None:
    async with FakeNode("old").start() as node, relay_to(node.settings) as relay:
        await eventually(lambda: state(relay) == "up")
        await node.stop()
        await eventually(lambda: state(relay) == "down")
        relay.forward(message("1", touched=["new"]))
        relay.forward(message("2"))
        node.fingerprint = "new"
        node.start()
        await node.got(1)
        assert node.texts == ["2"]


async def test_an_idle_connection_that_was_closed_is_replaced_immediately(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        FakeNode("B", idle=0.05).start() as node,
        relay_to(node.settings, options=PeerOptions(min_backoff=30)) as relay,
    ):
        for number in range(5):
            relay.forward(message(str(number)))
            await node.got(number + 1)
            await eventually(lambda number=number: node.connections > number + 1)  # type: ignore[misc]
    assert not [line for line in lines(caplog, "is unreachable") if "refused" not in line]


async def test_a_peer_that_hangs_uses_one_connection_and_delays_no_other() -> None:
    async with (
        started("B", "C") as [hung, node],
        relay_to(hung.settings, node.settings, options=PeerOptions(response_timeout=60)) as relay,
    ):
        hung.is_hung = True
        for number in range(1000):
            relay.forward(message(str(number)))
        await node.got(1000)
        assert hung.connections == 1


async def test_a_peer_that_hangs_times_out_and_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    async with FakeNode("B").start() as node, relay_to(node.settings, options=IMPATIENT) as relay:
        await eventually(lambda: state(relay) == "up")
        node.is_hung = True
        relay.forward(message("1"))
        await down(relay, "peer_timeout")
        node.is_hung = False
        await node.got(1)
    assert lines(caplog, "is unreachable: it did not respond within 0.5 s")


async def test_a_peer_that_accepts_nothing_is_no_connection() -> None:
    with socket.socket() as deaf, socket.socket() as filler:
        deaf.bind((HOST, 0))
        deaf.listen(0)
        filler.connect(deaf.getsockname())
        settings = PeerSettings(host=HOST, port=deaf.getsockname()[1])
        async with relay_to(
            settings, options=PeerOptions(connect_timeout=0.1, response_timeout=0.1)
        ) as relay:
            await down(relay, "peer_timeout")


async def test_an_unknown_name() -> None:
    async with relay_to(PeerSettings(host="nobody.invalid", port=80)) as relay:
        await down(relay, "peer_unreachable")


async def test_an_invalid_name() -> None:
    async with relay_to(PeerSettings(host="x" * 70 + ".invalid", port=80)) as relay:
        await down(relay, "peer_unreachable")


# Answers that are none


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", BAD, "is not HTTP"),
        (b"", "peer_disconnected", "it closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", BAD, "(200) is incomplete"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n{}", BAD, "longer than 1048576 bytes"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n{}", BAD, "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html>..>", BAD, "not that of an admin server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", BAD, "not that of an admin server"),
        (
            b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{"state":"RUNNING"}',
            BAD,
            "not that of an admin server",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", BAD, "not that of an admin server"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "peer_http_error", "404: Not Found"),
        (
            b'HTTP/1.1 403 Forbidden\r\nContent-Length: 22\r\n\r\n{"error":"not\\nyours"}',
            "peer_http_error",
            "403: not yours",
        ),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: https://elsewhere/\r\nContent-Length: 0\r\n\r\n",
            BAD,
            "301, a redirect to https://elsewhere/",
        ),
    ],
)
async def test_the_error_for_each_response(
    caplog: pytest.LogCaptureFixture, answer: bytes, code: str, words: str
) -> None:
    async with raw_server(answer) as settings, relay_to(settings) as relay:
        relay.forward(message("1"))
        await down(relay, code)
        assert words in str(relay.status()[0]["last_error"])
    assert len(lines(caplog, "is unreachable")) == 1


async def test_a_slow_response_times_out() -> None:
    async with (
        raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", closes=False) as settings,
        relay_to(settings, options=IMPATIENT) as relay,
    ):
        await down(relay, "peer_timeout")


async def test_a_peer_that_disconnects_at_each_post_is_retried_with_a_delay() -> None:
    node = FakeNode("B").start()

    def cut(request: HTTPServerRequest) -> Reply | None:
        if request.method == "POST":
            assert request.connection is not None
            request.connection.stream.close()  # type: ignore[attr-defined]
            return Reply(200, b"")
        return None

    node.respond = cut
    async with node, relay_to(node.settings, options=PeerOptions(min_backoff=30, max_backoff=30)) as relay:
        relay.forward(message("1"))
        await down(relay, "peer_disconnected")
        assert node.connections <= 2
        node.respond = lambda _request: None
        assert await relay.close(5) == 0
        assert node.texts == ["1"]


async def test_a_post_with_an_invalid_response_is_retried() -> None:
    node = FakeNode("B").start()
    node.respond = lambda request: Reply(200, b"ok") if request.method == "POST" else None
    async with node, relay_to(node.settings) as relay:
        relay.forward(message("1"))
        await down(relay, "peer_bad_response")
        node.respond = lambda _request: None
        await node.got(1)


async def test_an_overloaded_peer_is_retried(caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode("B").start()
    node.respond = lambda request: reply(503, error="too much waits") if request.method == "POST" else None
    async with node, relay_to(node.settings) as relay:
        for number in range(10):
            relay.forward(message(str(number)))
        await down(relay, "peer_http_error")
        await eventually(lambda: relay.status()[0]["posts"] == 3)
        node.respond = lambda _request: None
        await node.got(10)
        assert node.texts == [str(number) for number in range(10)]
        await eventually(lambda: state(relay) == "up")
    assert len(lines(caplog, "is unreachable")) == len(lines(caplog, "is up again")) == 1


async def test_the_rest_of_a_partly_published_list_is_sent() -> None:
    async with FakeNode("B").start() as node:

        def respond(request: HTTPServerRequest) -> Reply | None:
            post = read_post(request) if request.method == "POST" else None
            if post is None or len(post.objects) < 4:
                return None
            node.posts.append(Post(post.instance, post.objects[:3], is_list=True))
            taken = [{"uniqueID": each["uniqueID"], "matched": 0} for each in post.objects[:3]]
            return reply(503, error="too much waits", fingerprint="B", receipts=taken)

        node.respond = respond
        async with relay_to(node.settings) as relay:
            await eventually(lambda: relay.status()[0]["fingerprint"] == "B")
            for number in range(20):
                relay.forward(message(str(number)))
            await node.got(20)
            assert node.texts == [str(number) for number in range(20)]
            await eventually(lambda: state(relay) == "up")
            assert relay.status()[0]["sent"] == 20
            assert relay.status()[0]["queued"] == 0


@pytest.mark.parametrize("receipts", [[{}] * 99, [{}] * 4, [], {}, None])
async def test_invalid_receipts_lose_no_message(receipts: object) -> None:
    async with FakeNode("B").start() as node:
        refusals = [reply(503, error="too much waits", receipts=receipts)]
        node.respond = lambda request: refusals.pop() if request.method == "POST" and refusals else None
        async with relay_to(node.settings) as relay:
            await eventually(lambda: relay.status()[0]["fingerprint"] == "B")
            for number in range(4):
                relay.forward(message(str(number)))
            await node.got(4)
            assert node.texts == ["0", "1", "2", "3"]


# Messages that are refused


@pytest.mark.parametrize("status", [400, 413])
async def test_a_rejected_message_does_not_delay_others(
    caplog: pytest.LogCaptureFixture, status: int
) -> None:
    node = FakeNode("B").start()
    node.respond = lambda request: reply(status, error="never") if b'"bad"' in request.body else None
    async with node, relay_to(node.settings) as relay:
        texts = [str(number) for number in range(100)]
        for text in [*texts[:37], "bad", *texts[37:]]:
            relay.forward(message(text))
        await node.got(100)
        assert node.texts == texts
        assert relay.status()[0]["dropped"] == 1
        await eventually(lambda: state(relay) == "up")
    assert lines(caplog, "message bad was dropped") == [
        record for record in lines(caplog, "dropped") if f"it responded {status}: never" in record
    ]


async def test_many_rejected_messages_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode("B").start()
    node.respond = lambda request: reply(400, error="never") if request.method == "POST" else None
    async with node, relay_to(node.settings) as relay:
        for number in range(50):
            relay.forward(message(str(number)))
        await eventually(lambda: relay.status()[0]["dropped"] == 50)
    assert len(lines(caplog, "was dropped")) == 1
    assert len(lines(caplog, "49 more messages were rejected")) == 1


async def test_a_peer_that_does_not_accept_lists_after_all() -> None:
    node = NodeJsServer("N").start()
    node.respond = lambda request: (
        reply(200, version=7, fingerprint="N")
        if request.method == "GET" or request.body.startswith(b"[")
        else None
    )
    async with node, relay_to(node.settings) as relay:
        for number in range(5):
            relay.forward(message(str(number)))
        await node.got(5)
        assert node.texts == ["0", "1", "2", "3", "4"]


# PeerOptions


async def test_too_many_messages_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode("B").start()
    await node.stop()
    async with node, relay_to(node.settings) as relay:
        await eventually(lambda: state(relay) == "down")
        for number in range(5000):
            relay.forward(message(str(number)))
        assert relay.status()[0]["queued"] == 4096
        node.start()
        await node.got(4096)
        assert node.texts == [str(number) for number in range(5000 - 4096, 5000)]
        assert relay.status()[0]["dropped"] == 5000 - 4096
        await eventually(lambda: state(relay) == "up")
    assert [line.partition(": ")[2] for line in lines(caplog, "dropped")] == [
        "904 messages were dropped, too old or too many"
    ]


async def test_old_messages_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode("B").start()
    await node.stop()
    async with node, relay_to(node.settings, options=replace(FAST, max_age=0.5)) as relay:
        relay.forward(message("old"))
        await eventually(lambda: relay.status()[0]["dropped"] == 1)
        node.start()
        await eventually(lambda: state(relay) == "up")
        relay.forward(message("young"))
        await node.got(1)
        assert node.texts == ["young"]
        await eventually(lambda: state(relay) == "up")
    assert len(lines(caplog, "1 messages were dropped")) == 1


async def test_an_unexpected_error_is_logged_and_survived(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeNode("B").start() as node, relay_to(node.settings) as relay:
        with monkeypatch.context() as patch:
            patch.setattr(PeerConnection, "request", lambda *_: 1 / 0)
            relay.forward(message("1"))
            await down(relay, "peer_error")
        await node.got(1)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info
    caplog.clear()
