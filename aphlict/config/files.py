"""The contents of the files that a configuration names: each is read once, and handed on to other processes."""

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

Read = Callable[[str], bytes]  # returns the content of a file; raises OSError


def read_file(path: str) -> bytes:
    """Read a file from disk. Raises OSError."""
    return Path(path).read_bytes()


class FileReader:
    """Reads each file once, so that what was checked is what is used, in every process."""

    def __init__(self, contents: Mapping[str, bytes] | None = None) -> None:
        self.contents = dict(contents or {})

    def read(self, path: str) -> bytes:
        """The content of a file, from disk the first time. Raises OSError."""
        if path not in self.contents:
            self.contents[path] = read_file(path)
        return self.contents[path]

    def recall(self, path: str) -> bytes:
        """The content of a file that was read before. Raises FileNotFoundError for any other."""
        try:
            return self.contents[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None

    def adopt(self, earlier: "FileReader", paths: Iterable[str]) -> None:
        """Take what an earlier reader has of these files, as far as this one has not read them."""
        for path in paths:
            if path not in self.contents and path in earlier.contents:
                self.contents[path] = earlier.contents[path]
