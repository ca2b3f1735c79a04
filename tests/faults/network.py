"""A network of a few hosts, each a network namespace, whose links can be cut."""

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.powers import need, need_root, run

CLONE_NEWNET = 0x40000000
FOLDER = Path("/run/netns")


class Network:
    """Hosts 1 to `size` at 10.99.0.HOST, each with a link to one switch."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._switch = f"aphlict-{os.getpid()}-switch"

    def address(self, host: int) -> str:
        """The address of a host."""
        return f"10.99.0.{host}"

    def name(self, host: int) -> str:
        """The namespace of a host."""
        return f"aphlict-{os.getpid()}-{host}"

    def build(self) -> None:
        """Create hosts, switch and links."""
        self._make(self._switch)
        self._on(self._switch, "ip", "link", "add", "switch", "type", "bridge")
        self._on(self._switch, "ip", "link", "set", "switch", "up")
        for host in range(1, self.size + 1):
            self._make(self.name(host))
            run("ip", "link", "add", "eth0", "netns", self.name(host), "type", "veth",
                "peer", "name", f"port{host}", "netns", self._switch)  # fmt: skip
            self._on(self.name(host), "ip", "address", "add", f"{self.address(host)}/24", "dev", "eth0")
            self._on(self.name(host), "ip", "link", "set", "eth0", "up")
            self._on(self._switch, "ip", "link", "set", f"port{host}", "master", "switch", "up")

    def _make(self, name: str) -> None:
        run("ip", "netns", "add", name)
        self._on(name, "ip", "link", "set", "lo", "up")

    def _on(self, name: str, *command: str) -> None:
        run("ip", "netns", "exec", name, *command)

    def cut(self, host: int) -> None:
        """Cut the link of a host: packets are lost, without an error."""
        self._on(self._switch, "ip", "link", "set", f"port{host}", "nomaster")

    def restore(self, host: int) -> None:
        """Restore the link of a host."""
        self._on(self._switch, "ip", "link", "set", f"port{host}", "master", "switch")

    def words(self, host: int, *command: str) -> list[str]:
        """A command line that runs on a host."""
        return ["ip", "netns", "exec", self.name(host), *command]

    def connect(self, host: int, port: int) -> socket.socket:
        """Connect from a host to one of its own ports."""
        made: list[socket.socket | OSError] = []
        thread = threading.Thread(target=self._connect, args=(host, port, made))
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    def _connect(self, host: int, port: int, made: list[socket.socket | OSError]) -> None:
        """Connect in a thread of its own, which stays in the namespace of the host."""
        try:
            with (FOLDER / self.name(host)).open() as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_connection((self.address(host), port), 5))
        except OSError as error:
            made.append(error)

    def remove(self) -> None:
        """Delete the namespaces."""
        for name in (self._switch, *map(self.name, range(1, self.size + 1))):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@contextmanager
def network(size: int) -> Iterator[Network]:
    """Create a network; skip the test without the privileges for it."""
    need_root()
    need("ip")
    made = Network(size)
    try:
        made.build()
    except AssertionError as error:
        made.remove()
        pytest.skip(f"no network can be made here: {error}")
    try:
        yield made
    finally:
        made.remove()
