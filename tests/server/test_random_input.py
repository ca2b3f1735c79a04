"""Random input on both ports: no internal error, and no effect on other clients."""

import asyncio
import logging
import random
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.certificates import self_signed
from tests.support.frames import text
from tests.support.heads import head
from tests.support.nodes import receive, running_node, subscribed
from tests.support.waiting import eventually

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"
STRANGERS, AT_ONCE = 2000, 50
RESET = struct.pack("ii", 1, 0)
PATHS = (
    "/",
    "/ws/~a/",
    "/events?channel=a",
    "/poll?channel=a&wait=0",
    "/status",
    "/aphlict.js",
    "/poll?after=%FF",
)


def seeds(name: str) -> Sequence[bytes]:
    """The fuzzer's seeds for a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


HEADS, FRAMES, COMMANDS, BODIES = map(seeds, ("head", "frames", "command", "body"))


def make_up(chance: random.Random) -> bytes:
    """Return the input of one client: something like a request or a conversation, perhaps damaged."""
    kind = chance.randrange(4)
    if kind == 0:
        data = chance.choice(HEADS) + chance.choice(BODIES)
    elif kind == 1:
        body = chance.choice(BODIES)
        data = b"POST /?instance=x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        data *= chance.randrange(1, 4)
    elif kind == 2:
        data = head(f"GET {chance.choice(PATHS)} HTTP/1.1", None if chance.random() < 0.5 else {"Host": "x"})
    else:
        said = [text(each.decode(errors="replace")) for each in chance.choices(COMMANDS, k=4)]
        data = head() + b"".join(chance.choices([*FRAMES, *said], k=8))
    return damage(data, chance) if chance.random() < 0.4 else data


def damage(data: bytes, chance: random.Random) -> bytes:
    """Change, remove or add a few bytes."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(changed) + 1)
        changed[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    return bytes(changed)


async def visit(port: int, chance: random.Random) -> None:
    """Send in a few pieces, read a little, and disconnect in a random way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = make_up(chance)
    with suppress(OSError):
        for start in range(0, len(data), size := chance.choice((1, 7, 100, 1 << 20))):
            writer.write(data[start : start + size])
            await asyncio.sleep(0)
        if chance.random() < 0.3:
            writer.write_eof()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(chance.randrange(1, 5000)), chance.random() / 10)
        if chance.random() < 0.3:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_random_input_affects_nobody_else(
    secure: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = self_signed().write(tmp_path).settings() if secure else {}
    with caplog.at_level(logging.INFO):
        async with running_node() as node, running_node(client=tls, admin=tls) as victim:
            browser = await subscribed(node.url(), "a")
            chance = random.Random(1)
            for _ in range(STRANGERS // AT_ONCE):
                ports = (victim.client_port, victim.admin_port, node.client_port, node.admin_port)
                crowd = [visit(chance.choice(ports), chance) for _ in range(AT_ONCE)]
                await asyncio.gather(*crowd)
            await node.publish({"subscribers": ["a"], "text": "after all"}, instance="default")
            while (await receive(browser, 1))[0].get("text") != "after all":
                pass
            await browser.close()
            await eventually(lambda: not node.node.hub.connections)
    bad = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert not bad
