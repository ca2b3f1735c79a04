"""`status --watch`: the overview in a terminal, in a pipe, and as JSON."""

import json
import os
import pty
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fcntl import ioctl
from termios import TIOCSWINSZ
from typing import Any

import pytest

from aphlict.cli.overview_text import describe_overview
from tests.support.browsing import listening_to
from tests.support.installation import Installation, environment
from tests.support.nodes import RunningNode, running_node
from tests.trace.staging import SlowClient

WIDTH, HEIGHT = 60, 8  # of a terminal


@contextmanager
def watching(installation: Installation, *options: str) -> Iterator[Iterator[str]]:
    """The lines of a command that is ended by Ctrl-C, with exit status 0 and nothing but them."""
    process = installation.begin("status", "--watch", "0.1", *options)
    assert process.stdout is not None
    try:
        yield iter(process.stdout.readline, "")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert errors.splitlines() == [f"Using the configuration {installation.config}"]
    finally:
        process.kill()
        process.wait()


def until(lines: Iterator[str], condition: Callable[[Any], Any], read: Callable[[str], Any] = str) -> Any:
    """Read lines, each in time; return the first one that meets a condition."""
    for line in lines:
        if condition(found := read(line)):
            return found
    raise AssertionError("the command has ended")


def test_blocks_in_a_pipe(installation: Installation) -> None:
    installation.start()
    with listening_to(installation.client_port, "a"), watching(installation) as lines:
        for _ in range(2):
            until(lines, lambda line: "RUNNING, node" in line)
            until(lines, lambda line: line.startswith("  connections  1 (1 websocket), limit "))
            until(lines, lambda line: line.startswith("  process      worker ("))
            until(lines, lambda line: line.startswith("  log          "))
            assert until(lines, lambda line: line.startswith("  channel ")).endswith(
                "a (default): 1 subscriber\n"
            )


def test_one_object_a_line(installation: Installation) -> None:
    supervisor = installation.start()
    installation.post({"subscribers": ["a"]})
    with watching(installation, "--json") as lines:
        found = until(lines, lambda found: found["figures"]["messages"] == 1, json.loads)
        assert found["processes"][0]["pid"] in [each.pid for each in supervisor.children()]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_server_that_stops_and_starts(installation: Installation, options: tuple[str, ...]) -> None:
    running, gone = (
        ("RUNNING", "no response from the admin server") if not options else ('"figures"', '"error"')
    )
    with watching(installation, *options) as lines:
        for _ in range(2):
            until(lines, lambda line: gone in line)
            installation.start()
            until(lines, lambda line: running in line)
            installation.run("stop")


def test_a_server_that_rejects_the_request(installation: Installation) -> None:
    def write(secret: str) -> None:
        admin = {"type": "admin", "port": installation.admin_port, "admin.secret": secret}
        installation.write(servers=[{"type": "client", "port": installation.client_port}, admin])

    write("the-secret-of-the-server")
    installation.start()
    write("a-secret-that-is-wrong")
    with watching(installation, "--json") as lines:
        found = until(lines, lambda found: "error" in found, json.loads)
        assert found["code"] == "unauthorized"
        assert found["time"] > 0


class Terminal:
    """A terminal in which a command runs."""

    def __init__(self, installation: Installation) -> None:
        self.descriptor, inside = pty.openpty()
        ioctl(self.descriptor, TIOCSWINSZ, struct.pack("4H", HEIGHT, WIDTH, 0, 0))
        # The terminal has to be that of the session: Ctrl-C there becomes SIGINT.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *installation.words("status", "--watch", "0.1")],
            stdin=inside,
            stdout=inside,
            stderr=subprocess.DEVNULL,
            env=environment(COLUMNS="", LINES=""),
        )
        os.close(inside)
        self.text = ""

    def read_until(self, text: str) -> None:
        """Read until the screens of the command contain a text."""
        while text not in self.text:
            self.text += os.read(self.descriptor, 65_536).decode()


def test_the_same_place_of_a_terminal(installation: Installation) -> None:
    installation.start()
    terminal = Terminal(installation)
    try:
        for _ in range(3):
            terminal.read_until("\x1b[J")
            screen, _, terminal.text = terminal.text.partition("\x1b[J")
            assert "\x1b[H" in screen
            lines = screen.rpartition("\x1b[H")[2].split("\r\n")
            assert len(lines) == HEIGHT - 1
            assert max(len(line.removesuffix("\x1b[K")) for line in lines) == WIDTH
            assert "RUNNING, node" in lines[0]
        os.write(terminal.descriptor, b"\x03")
        assert terminal.process.wait(10) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.descriptor)


@pytest.mark.parametrize("value", ["0", "-1", "x", "nan", "inf", "1e9", ""])
def test_an_invalid_interval(installation: Installation, value: str) -> None:
    done = installation.run("status", f"--watch={value}")
    assert (done.returncode, done.stdout) == (77, "")
    assert "--watch" in done.stderr


def test_a_pipe_that_is_closed(installation: Installation) -> None:
    process = installation.begin("status", "--watch", "0.1", "--json")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    assert process.wait(10) not in (0, 1)
    process.communicate()


async def text_of(node: RunningNode) -> list[str]:
    return list(describe_overview((await node.ask("/overview"))[1]))


async def test_everything_that_an_overview_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aphlict.server.overview_maker.MIN_INTERVAL", 0.0)
    async with running_node(cluster=[{"host": "127.0.0.1", "port": 9}]) as node:
        slow = await SlowClient(node).subscribe("a")
        await slow.fill("a")
        await node.ask("/", method="POST", headers={"Origin": "null"}, body="{}")
        text = await text_of(node)
        for label in ("peer", "rejected", "slow", "instance", "channel"):
            assert sum(line.startswith(f"  {label:<12} ") for line in text) == 1, label
        slow.close()


async def test_processes_that_do_not_respond_and_certificates() -> None:
    async with running_node() as node:
        _, found = await node.ask("/overview")
    found |= {"processes_expected": 3}
    found["certificates"] = [
        {"port": "1", "expires": found["time"] + 86_400 * 3},
        {"port": "2", "expires": found["time"] - 1},
    ]
    text = list(describe_overview(found))
    assert "  process      2 of 3 did not respond" in text
    assert "  certificate  of port 1 expires in 3 days" in text
    assert "  certificate  of port 2 has expired" in text
