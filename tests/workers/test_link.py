"""The streams between hub and edges; in some tests, the test is the other side."""

import asyncio
import math
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from aphlict.config.settings import Limits, ServerSettings, Settings
from aphlict.core.history import Evictions
from aphlict.core.hub import Hub, Recovery
from aphlict.core.message import Delivery, Message
from aphlict.core.resume import ResumeToken
from aphlict.node import Node
from aphlict.server.auth import load_credentials
from aphlict.server.server import Port
from aphlict.workers.edge_side import HubConnection, HubConnector, NoForwarder
from aphlict.workers.hub_side import EdgePool
from aphlict.workers.ipc import Ack, HistoryRecord, Publish, RecordReader, encode, pack
from tests.support.hub import FakeSubscriber, join
from tests.support.nodes import command, subscribed
from tests.support.nodes import listening as listening_port
from tests.support.waiting import eventually

NAMES = [str(number) for number in range(300)]


MEBIBYTE = 1024 * 1024


def make_hub(history: int = 64 * MEBIBYTE, started: float = 0.0) -> Hub:
    """A hub that keeps messages of so many bytes."""
    return Hub("f" * 16, NoForwarder(), Limits(history=history), lambda: None, started)


def make_edge() -> Hub:
    """The hub of an edge that has just been started."""
    return make_hub(started=math.inf)


def resume(hub: Hub, after: str | None) -> tuple[int, bool]:
    """How many messages a browser gets that goes on from there, and whether these are all."""
    assert after is not None
    results: list[Recovery] = []
    _, subscriber = join(hub, "A")
    hub.replay_after(subscriber, [after], time.monotonic(), results.append)
    while hub.run_slice():
        pass
    hub.leave(subscriber)
    return results[0]


def listening() -> tuple[socket.socket, str]:
    """A listening Unix socket, and its abstract name (unix(7))."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.bind("")  # the kernel chooses the name
    sock.listen()
    return sock, "\0" + sock.getsockname()[1:].decode()


@asynccontextmanager
async def kept(keeper: HubConnector) -> AsyncIterator[None]:
    """Keep a link for a while; it has ended when this returns."""
    keeper.start()
    task = keeper._task
    assert task is not None
    try:
        yield
    finally:
        keeper.close()
        await asyncio.wait({task})


@asynccontextmanager
async def distributing(hub: Hub) -> AsyncIterator[tuple[EdgePool, str]]:
    """Accept edges, at the address that is returned; they have to be disconnected at the end."""
    sock, address = listening()
    distribution = EdgePool(hub, 1)
    await distribution.start(sock)
    try:
        yield distribution, address
    finally:
        await eventually(lambda: answered(distribution) == 0, "the end of the edges")
        distribution.close()


def answered(distribution: EdgePool) -> int | None:
    """Return 0 if there are no edges, and None if their responses are pending."""
    reported: list[int] = []
    distribution.request_stats("", lambda each: reported.append(len(each)))
    return reported[0] if reported else None


class Faulty(FakeSubscriber):
    """A receiver with a bug."""

    def deliver(self, _delivery: Delivery, /) -> None:
        raise RuntimeError("a bug")


def make_message(name: str, size: int = 0) -> Message:
    """A message with so many bytes of text."""
    fields = b'{"uniqueID":"%b","text":"%b"' % (name.encode(), b"x" * size)
    return Message("default", name, ("A", "B"), (), fields)


async def test_a_long_list_for_many_clients_does_not_block_an_edge() -> None:
    hub = make_hub()
    first, _ = join(hub, "A", "B")
    for _ in range(4998):
        join(hub, "A", "B")
    last, _ = join(hub, "A", "B")
    here, there = socket.socketpair()
    _, link = await asyncio.get_running_loop().create_connection(
        lambda: HubConnection(hub, 0.0, lambda: None), sock=here
    )
    reader, writer = await asyncio.open_connection(sock=there)
    writer.write(encode(Publish(1, [pack(make_message(name), 0.0) for name in NAMES])))
    seen: set[int] = set()  # how many messages had been taken when other work had its turn
    while len(NAMES) not in seen:
        await asyncio.sleep(0)
        seen.add(hub.counters.messages_in)
    assert len(seen - {0, len(NAMES)}) >= 2
    records, answers = RecordReader(), list[Ack]()
    while not answers:
        came = records.feed(await reader.read(65536))
        answers += [record for record in came if isinstance(record, Ack)]
    assert [(each.number, each.matched) for each in answers] == [(1, [5000] * 300)]
    while hub.run_slice():
        pass
    assert first.ids == last.ids == NAMES
    link.close()
    writer.close()


async def test_a_lost_connection_does_not_affect_the_next_one() -> None:
    hub = make_hub()
    for _ in range(2000):
        join(hub, "A", "B")
    sock, address = listening()
    keeper, loop = HubConnector(hub, address, lambda: None), asyncio.get_running_loop()
    async with kept(keeper):
        first, _ = await loop.sock_accept(sock)
        messages = [pack(make_message(name), 0.0) for name in NAMES]
        records = (
            Publish(1, messages[:1]),
            Publish(0, messages[1:]),
            HistoryRecord([], Evictions(0.0, 0.0, {})),
        )
        await loop.sock_sendall(first, b"".join(encode(record) for record in records))
        first.close()  # which the edge notices when it confirms
        second, _ = await loop.sock_accept(sock)
        await eventually(lambda: hub.counters.messages_in == len(NAMES), "the messages")
        for _ in range(10):
            await asyncio.sleep(0)
        assert not keeper.up_to_date.is_set()
        assert hub.in_sync_until < math.inf
        second.close()
    sock.close()


async def test_an_edge_joins_again_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    hub, edge = make_hub(), make_hub()
    faulty = edge.join("default", Faulty())
    edge.subscribe(faulty, ["A"])
    receipts: list[object] = []
    async with (
        distributing(hub) as (distribution, address),
        kept(keeper := HubConnector(edge, address, lambda: None)),
    ):
        await asyncio.wait_for(keeper.up_to_date.wait(), 10)
        distribution.publish([make_message("1"), make_message("2")], time.monotonic(), receipts.append)
        await eventually(lambda: receipts, "the receipts")
        edge.leave(faulty)
        listener, _ = join(edge, "A")
        await eventually(lambda: listener.ids == ["2"], "what came behind the error")
        distribution.publish([make_message("3")], time.monotonic(), receipts.append)
        await eventually(lambda: listener.ids == ["2", "3"], "what came later")
    errors = [each for each in caplog.records if each.levelname == "ERROR"]
    assert [str(each.exc_info[1]) for each in errors if each.exc_info] == ["a bug"]


async def test_an_edge_joins_however_long_the_history_is() -> None:
    """Messages that are published meanwhile arrive once, in order, and after the history."""
    hub, edge = make_hub(1024 * MEBIBYTE), make_hub(1024 * MEBIBYTE)
    listener, _ = join(edge, "A")
    for name in NAMES[:80]:
        hub.publish(make_message(name, MEBIBYTE), time.monotonic())
    rest = iter(NAMES[80:])
    async with (
        distributing(hub) as (distribution, address),
        kept(keeper := HubConnector(edge, address, lambda: None)),
    ):
        await eventually(lambda: listener.deliveries, "the begin of the history")
        assert not keeper.up_to_date.is_set()
        for name in rest:
            distribution.publish([make_message(name)], time.monotonic(), lambda _receipts: None)
            await asyncio.sleep(0)
            if keeper.up_to_date.is_set():
                break
        for name in rest:
            distribution.publish([make_message(name)], time.monotonic(), lambda _receipts: None)
        await eventually(
            lambda: not edge.run_slice() and len(listener.deliveries) == len(NAMES), "all messages"
        )
    assert listener.ids == NAMES


async def test_a_hub_learns_a_history_however_long_it_is() -> None:
    hub, edge = make_hub(1024 * MEBIBYTE), make_hub(1024 * MEBIBYTE)
    for name in NAMES[:80]:
        edge.publish(make_message(name, MEBIBYTE), time.monotonic())
    async with distributing(hub) as (_, address), kept(keeper := HubConnector(edge, address, lambda: None)):
        await asyncio.wait_for(keeper.up_to_date.wait(), 20)
    assert [entry.message.unique_id for entry in hub.history.entries()] == NAMES[:80]


async def test_nothing_waits_for_an_edge_that_joins_and_does_not_read() -> None:
    """But for what the history keeps anyway."""
    hub = make_hub(10 * MEBIBYTE)
    for name in NAMES[:3]:
        hub.publish(make_message(name, MEBIBYTE), time.monotonic())
    async with distributing(hub) as (distribution, address):
        reader, writer = await asyncio.open_unix_connection(address, limit=1024)
        with closing(writer):
            writer.write(encode(HistoryRecord([], Evictions(math.inf, 0.0, {}))))
            data = await reader.readexactly(1)
            for name in NAMES[3:100]:
                distribution.publish([make_message(name, MEBIBYTE)], time.monotonic(), lambda _receipts: None)
                await asyncio.sleep(0)
            records, names, size = RecordReader(), list[str](), 0
            while True:
                size += len(data)
                for record in records.feed(data):
                    assert isinstance(record, HistoryRecord)
                    names += [each.unique_id for each in record.messages]
                if "99" in names:
                    break
                data = await reader.read(65536)
                assert data
        assert size < 10 * MEBIBYTE
        assert names == sorted(names, key=int)


async def test_an_edge_that_was_disconnected_knows_what_it_missed() -> None:
    hub, edge, gaps = make_hub(), make_edge(), list[int]()
    _, subscriber = join(edge, "A")

    def place() -> str | None:
        while edge.run_slice():
            pass
        return edge.resume_token(subscriber, time.monotonic())

    def publish(*names: str) -> None:
        distribution.publish([make_message(name) for name in names], time.monotonic(), lambda _receipts: None)

    async with distributing(hub) as (distribution, address):
        keeper = HubConnector(edge, address, lambda: gaps.append(edge.history.sequence))
        async with kept(keeper):
            await asyncio.wait_for(keeper.up_to_date.wait(), 10)
            publish("0")
            await eventually(lambda: edge.counters.messages_in == 1, "the message")
            gaps.clear()  # when it joined, it had nothing
            early = place()
        publish("1")
        async with kept(keeper):
            await asyncio.wait_for(keeper.up_to_date.wait(), 10)
            assert resume(edge, early) == (1, True)
            assert gaps == []
            early = place()
        await eventually(lambda: answered(distribution) == 0, "the end of the link")
        publish(*map(str, range(2, 5002)))
        while_away = place()
        async with kept(keeper):
            await asyncio.wait_for(keeper.up_to_date.wait(), 10)
            assert len(gaps) == 1
            late = place()
            publish("last")
            await eventually(lambda: edge.counters.messages_in == 4099, "the last message")
            for after in (early, while_away, "0", "1"):
                assert resume(edge, after) == (4096, False)
            assert resume(edge, late) == (1, True)
            assert resume(edge, "906") == (4096, True)


async def test_an_edge_that_has_not_joined_knows_nothing() -> None:
    hub, edge = make_hub(), make_edge()
    begin = time.monotonic()
    keeper = HubConnector(edge, "nowhere", lambda: None)
    later = begin + 100
    _, subscriber = join(edge, "A")
    place = edge.resume_token(subscriber, later)
    assert place is not None
    position = ResumeToken.decode(place)
    assert position is not None
    assert position.at < edge.epoch + begin + 50, "not where it was asked, but where it knew all"
    elsewhere = hub.resume_token(join(hub, "A")[1], later)
    for after in (place, elsewhere, "0"):
        assert resume(edge, after) == (0, False)
    keeper.close()


async def test_clients_of_an_edge_that_missed_messages_have_to_resume() -> None:
    sock, address = listening()
    loop, client = asyncio.get_running_loop(), listening_port()
    server = ServerSettings(type="client", port=client.getsockname()[1], listen="127.0.0.1")
    settings = Settings(servers=(server,), pidfile="/nowhere/pid", drain_time=0.0)
    edge = Node(settings, [Port(server, [client])], [load_credentials(server)], hub_address=address)

    async def let_join(dropped_at: float) -> socket.socket:
        link, _ = await loop.sock_accept(sock)
        await loop.sock_sendall(link, encode(HistoryRecord([], Evictions(0.0, dropped_at, {}))))
        return link

    starting = asyncio.create_task(edge.start())
    link = await let_join(1.0)
    await starting
    browser = await subscribed(f"ws://127.0.0.1:{server.port}/", "a")
    link.close()
    link = await let_join(1.0)  # nothing was dropped meanwhile
    await eventually(lambda: edge.hub.in_sync_until == math.inf, "the link")
    await command(browser, "subscribe", ["b"])
    link.close()
    link = await let_join(2.0)
    await asyncio.wait_for(browser.wait_closed(), 10)
    assert browser.close_code == 1013
    link.close()
    sock.close()
    await edge.drain()
