"""Five thousand clients that stop reading."""

import http.client
import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from tests.support import browsing
from tests.support.frames import text
from tests.support.heads import head
from tests.support.installation import Installation
from tests.support.waiting import wait_until

BROWSERS = 5000
DESCRIPTORS = BROWSERS + 1000  # of the test; the server needs as many, and raises its own limit
LONG = "x" * 32 * 1024
TOGETHER = 25  # messages in one list: less than `limits.body`
SAMPLE = 20  # of the slow browsers: what they got is looked at
CUT_OFF = 1000  # at least so many clients are disconnected, if each receives messages of its own
LONGEST = 20  # rounds of messages
ADDRESSES = 100  # of the clients: a single one may use a quarter of the total

# The figures of docs/reliability.md; HASTE has room for a busy machine.
HASTE = 1.0  # seconds within which the witness has half of the messages
PATIENCE = 5.0  # seconds within which it has each message: the first ones fill 5,000 buffers
SHARED = 48 * 2**20  # bytes by which the server may grow if all clients wait for the same messages
MOST = 512 * 2**20  # bytes that it may use if each client waits for messages of its own
OF_THE_KERNEL = 256 * 1024  # bytes for each, both ends of its connection together

pytestmark = pytest.mark.timeout(120)


class Publisher:
    """Publishes over one connection, and measures the time until the witness has the message."""

    def __init__(self, port: int, witness: ClientConnection) -> None:
        self._client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._witness = witness
        self._took: list[float] = []

    def publish(self, *messages: dict[str, Any]) -> None:
        """Publish a list: its last message is for the witness."""
        began = time.monotonic()
        self._client.request("POST", "/", json.dumps(messages))
        answer = self._client.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
        assert browsing.receive(self._witness, 1)[0]["uniqueID"] == messages[-1]["uniqueID"]
        self._took.append(time.monotonic() - began)

    def check_haste(self) -> None:
        """Check that the witness did not wait."""
        print(
            f"half of the messages came within {median(self._took):.3f} s, each within {max(self._took):.3f} s,"
        )
        assert median(self._took) < HASTE
        assert max(self._took) < PATIENCE

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class Scene:
    """A server, slow clients, and a witness that keeps reading."""

    def __init__(self, installation: Installation, stack: ExitStack, channels: list[str]) -> None:
        self.installation = installation
        self._worker = installation.worker()
        self.memory_before = self.memory()
        self._kernel_before = kernel_memory()
        self.slow = [
            stack.enter_context(closing(browser(installation.client_port, channel, number % ADDRESSES)))
            for number, channel in enumerate(channels)
        ]
        self.witness = stack.enter_context(browsing.listening_to(installation.client_port, "witness", "all"))
        self.publisher = stack.enter_context(closing(Publisher(installation.admin_port, self.witness)))

    def memory(self) -> int:
        """Bytes of the worker."""
        return int(self._worker.memory_full_info().pss)

    def kernel_memory(self) -> int:
        """Bytes that TCP uses on the whole machine, more than before."""
        return kernel_memory() - self._kernel_before

    @property
    def left(self) -> int:
        """The number of slow clients that are still connected."""
        return int(self.installation.answers()["connections"]) - 1


def kernel_memory() -> int:
    """Bytes that TCP uses on the whole machine (proc(5))."""
    lines = Path("/proc/net/sockstat").read_text().splitlines()
    words = next(line for line in lines if line.startswith("TCP:")).split()
    return int(words[words.index("mem") + 1]) * resource.getpagesize()


def browser(port: int, channel: str, address: int) -> socket.socket:
    """Connect a client that subscribes and stops reading, with a small receive buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.bind((f"127.0.1.{1 + address}", 0))
    sock.settimeout(10)
    sock.connect(("127.0.0.1", port))
    sock.sendall(head() + text(json.dumps({"command": "subscribe", "data": [channel]})))
    assert sock.recv(4096).endswith(b"\r\n\r\n")
    return sock


@pytest.fixture
def stack(installation: Installation) -> Iterator[ExitStack]:
    """Run a server, with file descriptors for all sockets of the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < DESCRIPTORS:
        pytest.skip(f"needs {DESCRIPTORS} file descriptors, and {hard} is the hard limit")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))
    installation.start()
    with ExitStack() as made:
        yield made
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_browsers_that_wait_for_the_same_messages(installation: Installation, stack: ExitStack) -> None:
    scene = Scene(installation, stack, ["all"] * BROWSERS)
    number, memory = 0, 0
    while scene.left:
        assert number < 100, "they are cut off at their bound"
        scene.publisher.publish({"subscribers": ["all"], "uniqueID": str(number), "text": LONG})
        memory = max(memory, scene.memory())
        number += 1
    had = [read_to_the_end(each) for each in (*scene.slow[:SAMPLE], *scene.slow[-SAMPLE:])]
    print(f"{number} messages,")
    print(f"memory {scene.memory_before / 2**20:.1f} to {memory / 2**20:.1f} MiB")
    assert memory - scene.memory_before < SHARED
    scene.publisher.check_haste()
    assert installation.answers()["limits"]["limits.send_buffer"] == BROWSERS
    for last in had:
        assert resume(installation.client_port, last) == [str(each) for each in range(last + 1, number)]


def read_to_the_end(sock: socket.socket) -> int:
    """Return the number of the last message that a slow client received before it was closed, between two frames."""
    data = b""
    while piece := sock.recv(1 << 20):
        data += piece
    *messages, close = data.split(b'{"uniqueID":"')
    messages.append(close)
    assert data.endswith(b"\x88\x0a\x03\xf5too slow"), "close code 1013"
    assert all(len(each) > len(LONG) for each in messages[1:]), "whole messages"
    return int(messages[-1].split(b'"')[0])


def resume(port: int, last: int) -> list[str]:
    """The uniqueIDs that a client receives when it resumes."""
    with browsing.listening_to(port, "all") as back:
        back.send(json.dumps({"command": "replay", "data": {"after": str(last)}, "id": 1}))
        got = []
        while "id" not in (message := browsing.receive(back, 1)[0]):
            got.append(message["uniqueID"])
        assert message["recovered"] is True
        return got


def test_browsers_that_wait_for_messages_of_their_own(installation: Installation, stack: ExitStack) -> None:
    scene = Scene(installation, stack, [str(number) for number in range(BROWSERS)])
    memory, rounds = 0, 0
    while scene.left > BROWSERS - CUT_OFF:
        assert rounds < LONGEST, "they are cut off when all of them together have too much"
        for first in range(0, BROWSERS, TOGETHER):
            those = range(first, first + TOGETHER)
            messages: list[dict[str, Any]] = [
                {"subscribers": [str(number)], "text": LONG} for number in those
            ]
            scene.publisher.publish(*messages, {"subscribers": ["witness"], "uniqueID": f"{rounds}.{first}"})
            if not first % 500:
                memory = max(memory, scene.memory())
        rounds += 1
    print(f"{rounds} messages for each, {scene.left} browsers are left,")
    print(f"memory {memory / 2**20:.1f} MiB, of the kernel {scene.kernel_memory() / 2**20:.0f} MiB")
    assert memory < MOST
    assert scene.kernel_memory() < BROWSERS * OF_THE_KERNEL
    scene.publisher.check_haste()
    assert installation.answers()["limits"]["limits.send_buffer.total"] >= CUT_OFF
    with browsing.listening_to(installation.client_port, "a"):
        wait_until(lambda: installation.post({"subscribers": ["a"]})[1]["matched"] == 1)
