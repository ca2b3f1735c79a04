"""A list on its way through a hub to its edges, all of them in the process of the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from aphlict.config.loader import from_keys
from aphlict.config.settings import Limits
from aphlict.core.hub import Hub, MessageReceipt
from aphlict.core.message import Message
from aphlict.core.state import describe
from aphlict.errors import Overloaded
from aphlict.node import Node
from aphlict.server.auth import Credentials
from aphlict.server.server import Port
from aphlict.workers.edge_side import HubConnector
from aphlict.workers.ipc import HistoryRecord, RecordReader, encode
from tests.support.hub import join
from tests.support.nodes import listening
from tests.support.waiting import eventually
from tests.workers.links import kept, make_edge
from tests.workers.links import listening as listening_for_edges

LIMIT = 3000
BROWSERS = 300  # more than get a message at once: it has to wait for its turn


def make_list(begin: int, end: int) -> list[Message]:
    return [Message("default", str(n), ("A",), (), b'{"uniqueID":"%d"' % n) for n in range(begin, end)]


@asynccontextmanager
async def hub_and_edge() -> AsyncIterator[tuple[Node, Hub, str]]:
    """A hub, its only edge, and the address for more of them. The edge delivers when the test calls `work`."""
    admin = listening()
    raw = {
        "servers": [{"type": "client", "port": 1}, {"type": "admin", "port": admin.getsockname()[1]}],
        "pidfile": "/nowhere/pid",
        "drain.time": 0,
        "limits.delivery_queue": LIMIT,
    }
    settings = from_keys(raw)
    sock, address = listening_for_edges()
    ports = [Port(settings.servers[1], [admin])]
    node = Node(settings, ports, [Credentials()], edge_listener=sock)
    edge = make_edge()
    edge.reload(Limits(delivery_queue=LIMIT))
    async with kept(HubConnector(edge, address, lambda: None)):
        await node.start()
        yield node, edge, address
    await node.drain()


async def publish(node: Node, messages: list[Message]) -> list[MessageReceipt]:
    """Publish a list; the receipts."""
    done = asyncio.get_running_loop().create_future()
    node.publish(messages, done.set_result)
    receipts: list[MessageReceipt] = await asyncio.wait_for(done, 10)
    return receipts


def accepts(node: Node, messages: list[Message]) -> bool:
    """Whether a list is not refused."""
    try:
        node.publish(messages, lambda _: None)
    except Overloaded:
        return False
    return True


async def test_a_list_is_accepted_until_an_edge_is_overloaded() -> None:
    async with hub_and_edge() as (node, edge, _):
        listeners = [join(edge, "A")[0] for _ in range(BROWSERS)]
        receipts = await publish(node, make_list(0, 1000))
        taken = len(receipts)
        assert [receipt.unique_id for receipt in receipts] == [str(n) for n in range(taken)]
        assert {receipt.matched for receipt in receipts} == {BROWSERS}
        assert edge.fan_out.queued <= LIMIT + BROWSERS
        with pytest.raises(Overloaded):
            node.publish(make_list(taken, 1000), lambda _: None)
        assert node.hub.counters.messages_in == taken
        while edge.run_slice():
            pass
        for listener in listeners:
            assert listener.ids == [str(n) for n in range(taken)]
        await eventually(
            lambda: accepts(node, make_list(taken, taken + 1)), "a hub that knows that its edge has time"
        )


async def test_a_list_for_few_clients_is_published_in_few_parts() -> None:
    async with hub_and_edge() as (node, edge, _):
        listener, _ = join(edge, "A")
        receipts = await publish(node, make_list(0, 1000))
        assert [receipt.matched for receipt in receipts] == [1] * 1000
        while edge.run_slice():
            pass
        assert listener.ids == [str(n) for n in range(1000)]


async def test_an_edge_that_hangs_delays_a_list_once() -> None:
    async with hub_and_edge() as (node, edge, address):
        listener, _ = join(edge, "A")
        reader, writer = await asyncio.open_unix_connection(address)
        with closing(writer):
            writer.write(encode(HistoryRecord([], describe(edge), is_last=True)))
            records, joined = RecordReader(), False
            while not joined:
                came = records.feed(await reader.read(65536))
                joined = any(isinstance(each, HistoryRecord) and each.is_last for each in came)
            receipts = await publish(node, make_list(0, 1000))
            assert [receipt.unique_id for receipt in receipts] == [str(n) for n in range(1000)]
        # An edge that is late confirms after the receipts.
        await eventually(lambda: not edge.run_slice() and len(listener.ids) == 1000, "all messages")
        assert listener.ids == [str(n) for n in range(1000)]
