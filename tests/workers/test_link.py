"""An edge's side of the stream from the hub, whose part is played by the test."""

import asyncio
import socket

from aphlict.config.settings import Limits
from aphlict.hub import Hub
from aphlict.message import Message
from aphlict.workers.link import Link
from aphlict.workers.nodes import Nowhere
from aphlict.workers.records import Confirm, Publish, RecordReader, encode, pack
from tests.support.listeners import join
from tests.support.loops import in_loop

NAMES = [str(number) for number in range(300)]


def make_message(name: str) -> Message:
    return Message("default", name, ("A", "B"), (), b'{"uniqueID":"%b"' % name.encode())


@in_loop
async def test_a_long_list_for_many_browsers_does_not_hold_up_an_edge() -> None:
    hub = Hub("f" * 16, Nowhere(), Limits(), lambda: None)
    _, first = join(hub, "A", "B")
    for _ in range(4998):
        join(hub, "A", "B")
    _, last = join(hub, "A", "B")
    here, there = socket.socketpair()
    link, _ = await asyncio.get_running_loop().create_connection(
        lambda: Link(hub, asyncio.Event()), sock=here
    )
    reader, writer = await asyncio.open_connection(sock=there)
    writer.write(encode(Publish(1, [pack(make_message(name), 0.0) for name in NAMES])))
    seen: set[int] = set()  # how many messages had been taken when other work had its turn
    while len(NAMES) not in seen:
        await asyncio.sleep(0)
        seen.add(hub.counters.messages_in)
    assert len(seen - {0, len(NAMES)}) >= 2
    records, answers = RecordReader(), list[Confirm]()
    while not answers:
        came = records.feed(await reader.read(65536))
        answers += [record for record in came if isinstance(record, Confirm)]
    assert [(each.number, each.matched) for each in answers] == [(1, [5000] * 300)]
    while hub.work():
        pass
    assert first.names == last.names == NAMES
    link.close()
    writer.close()
