"""The contents of the files that a configuration names: each is read once, and handed on to other processes."""

import errno
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from msgspec import structs

from aphlict.config.descriptions import invalid
from aphlict.config.settings import ServerSettings, Settings

MIN_SECRET = 16
MAX_SECRETS = 16  # secrets in a file: the present one, and those that are being given up
HEADER_SAFE = re.compile(r"[!-~]+")  # what a header can carry without quoting

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


def read_secrets(settings: Settings, read: Read = read_file) -> Settings:
    """Read the files that `admin.secret.file` names. Raises ConfigError where one cannot serve."""
    servers = tuple(_read(server, f"servers[{index}]", read) for index, server in enumerate(settings.servers))
    return structs.replace(settings, servers=servers)


def _read(server: ServerSettings, key: str, read: Read) -> ServerSettings:
    if server.admin_secret_file is None:
        return server
    key, name = f"{key}.admin.secret.file", server.admin_secret_file
    try:
        lines = read(name).decode("ascii").split()
    except OSError as error:
        raise invalid(key, name, "a file that can be read", str(error.strerror)) from error
    except UnicodeDecodeError as error:
        raise invalid(key, name, "a file of letters, digits and signs (ASCII)") from error
    if not 1 <= len(lines) <= MAX_SECRETS or any(len(line) < MIN_SECRET for line in lines):
        raise invalid(key, name, f"a file with a secret of at least {MIN_SECRET} characters on each line")
    return structs.replace(server, admin_secret="\n".join(lines))


def is_header_safe(secret: str) -> bool:
    """Whether a header can carry it."""
    return HEADER_SAFE.fullmatch(secret) is not None
