"""Free ports, for servers that have to be told which."""

import contextlib
import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.nodes import listening

# Above 10080, the last one that browsers refuse, and below those that the kernel gives to outgoing connections.
PORTS = range(11_000, 32_000)


class FreePorts:
    """Ports that nobody has now, each given out once.

    Of several test runs beside each other, each locks what it gives out, until it ends: between the moment in
    which a port is found free and that in which a server opens it, nobody else may find it free.
    """

    def __init__(self, book: Path) -> None:
        self._book = os.open(book, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._ports = itertools.cycle(PORTS)

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return next(port for port in self._ports if self._is_free(port))

    def _is_free(self, port: int) -> bool:
        with contextlib.suppress(OSError):
            fcntl.lockf(self._book, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            listening(port).close()
            return True
        return False


_free_ports = FreePorts(Path(tempfile.gettempdir(), f"aphlict-test-ports-{os.getuid()}"))


def free_ports(count: int) -> list[int]:
    """Different ports that nobody has now, and no other test gets."""
    return list(itertools.islice(_free_ports, count))
