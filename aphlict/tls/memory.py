"""Files that exist in memory alone, for libraries that read keys from nothing but a path."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def in_memory(content: bytes) -> Iterator[str]:
    """A path under which this process, and no other user's, can read the content until the end of the block.

    A private key must not be written to a disk, not even for a moment; and a temporary folder that can be
    written to is not a thing that a server can count on. `/proc/self/fd` stays readable for a process that
    has given up root.
    """
    descriptor = os.memfd_create("aphlict-tls", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"
