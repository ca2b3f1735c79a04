"""Free ports, for servers whose configuration names a port."""

import contextlib
import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.nodes import listening

# Above 10080, the highest port that browsers block, and below the ephemeral ports.
PORTS = range(11_000, 32_000)


class FreePorts:
    """An iterator over free ports; it returns each once.

    Test processes share a file, and each locks there the ports that it uses, until it ends: no other process finds
    a port free between this check and the start of the server.
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
    """Return different free ports that no other test gets."""
    return list(itertools.islice(_free_ports, count))
