"""The streams between hub and edges; in some tests, the test is the other side."""

import asyncio
import math
import socket
import time
from contextlib import closing

import pytest

from aphlict.core.message import Delivery
from aphlict.core.state import describe
from aphlict.core.trace_report import ProcessReport, TraceQuery
from aphlict.workers.edge_requests import TRACE
from aphlict.workers.edge_side import HubConnection, HubConnector
from aphlict.workers.ipc import Ack, HistoryRecord, Publish, RecordReader, encode
from tests.support.hub import FakeSubscriber, join
from tests.support.waiting import eventually
from tests.workers.links import (
    MEBIBYTE,
    answered,
    distributing,
    joined,
    kept,
    listening,
    make_edge,
    make_hub,
    make_message,
    packed,
    publish,
    state_of_new_hub,
)

NAMES = [str(number) for number in range(300)]


class Faulty(FakeSubscriber):
    """A receiver with a bug."""

    def deliver(self, _delivery: Delivery, /) -> None:
        raise RuntimeError("a bug")


async def test_a_long_list_for_many_clients_does_not_block_an_edge() -> None:
    hub = make_edge()
    first, _ = join(hub, "A", "B")
    for _ in range(4998):
        join(hub, "A", "B")
    last, _ = join(hub, "A", "B")
    here, there = socket.socketpair()
    _, link = await asyncio.get_running_loop().create_connection(
        lambda: HubConnection(hub, lambda: None), sock=here
    )
    reader, writer = await asyncio.open_connection(sock=there)
    writer.write(encode(Publish(1, packed(*NAMES))))
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
    hub = make_edge()
    for _ in range(2000):
        join(hub, "A", "B")
    sock, address = listening()
    keeper, loop = HubConnector(hub, address, lambda: None), asyncio.get_running_loop()
    async with kept(keeper):
        first, _ = await loop.sock_accept(sock)
        messages = packed(*NAMES)
        records = (
            Publish(1, messages[:1]),
            Publish(0, messages[1:]),
            HistoryRecord([], state_of_new_hub(), is_last=True),
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
    hub, edge = make_hub(), make_edge()
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


async def test_an_edge_that_fails_to_answer_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_query: TraceQuery) -> ProcessReport:
        raise RuntimeError("a bug")

    edge = make_edge()
    async with distributing(make_hub()) as (pool, address):
        answers = dict([TRACE.answered_by(fail)])
        async with kept(keeper := HubConnector(edge, address, lambda: None, answers)):
            await asyncio.wait_for(keeper.up_to_date.wait(), 10)
            collecting = asyncio.create_task(pool.collect(TRACE, TraceQuery("m")))
            await eventually(lambda: "answering the trace request" in caplog.text)
            pool.sweep(time.monotonic() + 60)
            assert await collecting == []
            assert answered(pool) is None, "it has yet to respond: it is connected"
            assert keeper.up_to_date.is_set()


async def test_an_edge_joins_however_long_the_history_is() -> None:
    """Messages that are published meanwhile arrive once, in order, and after the history."""
    hub, edge = make_hub(1024 * MEBIBYTE), make_edge(1024 * MEBIBYTE)
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
            publish(distribution, name)
            await asyncio.sleep(0)
            if keeper.up_to_date.is_set():
                break
        for name in rest:
            publish(distribution, name)
        await eventually(
            lambda: not edge.run_slice() and len(listener.deliveries) == len(NAMES), "all messages"
        )
    assert listener.ids == NAMES


async def test_a_hub_learns_a_history_however_long_it_is() -> None:
    hub, edge = make_hub(1024 * MEBIBYTE), make_edge(1024 * MEBIBYTE)
    for number, name in enumerate(NAMES[:80], 1):
        edge.publish(make_message(name, MEBIBYTE, number, "killed01"), time.monotonic())
    async with distributing(hub) as (_, address), joined(edge, address):
        pass
    assert [entry.message.unique_id for entry in hub.history.entries()] == NAMES[:80]


async def test_nothing_waits_for_an_edge_that_joins_and_does_not_read() -> None:
    """But for what the history keeps anyway."""
    hub = make_hub(10 * MEBIBYTE)
    for name in NAMES[:3]:
        hub.publish(make_message(name, MEBIBYTE), time.monotonic())
    async with distributing(hub) as (distribution, address):
        reader, writer = await asyncio.open_unix_connection(address, limit=1024)
        with closing(writer):
            writer.write(encode(HistoryRecord([], describe(make_edge()), is_last=True)))
            data = await reader.readexactly(1)
            for name in NAMES[3:100]:
                publish(distribution, name, size=MEBIBYTE)
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
