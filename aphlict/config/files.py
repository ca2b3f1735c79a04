"""Files that a configuration names: certificates, keys, secrets. Each is read once and passed to all processes."""

import errno
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from msgspec import structs

from aphlict.config.descriptions import invalid
from aphlict.config.settings import ServerSettings, Settings

MIN_SECRET = 16  # characters
MAX_SECRETS = 16  # in a file: the current one first, then those that are being phased out
HEADER_SAFE = re.compile(r"[!-~]+")  # allowed in a header without quoting

Read = Callable[[str], bytes]  # returns the content of a file; raises OSError


def read_file(path: str) -> bytes:
    """Return the content of a file on disk. Raises OSError."""
    return Path(path).read_bytes()


class FileReader:
    """Reads each file once, so that every process uses exactly what was checked."""

    def __init__(self, contents: Mapping[str, bytes] | None = None) -> None:
        self.contents = dict(contents or {})

    def read(self, path: str) -> bytes:
        """Return the content of a file, which is read from disk the first time. Raises OSError."""
        if path not in self.contents:
            self.contents[path] = read_file(path)
        return self.contents[path]

    def recall(self, path: str) -> bytes:
        """Return the content of a file that was read before. Raises FileNotFoundError for any other."""
        try:
            return self.contents[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None

    def adopt(self, earlier: "FileReader", paths: Iterable[str]) -> None:
        """Copy the contents of these files from an earlier reader, except those that this one has read."""
        for path in paths:
            if path not in self.contents and path in earlier.contents:
                self.contents[path] = earlier.contents[path]


def read_secrets(settings: Settings, read: Read = read_file) -> Settings:
    """Return settings with the secrets of each `admin.secret.file` filled in. Raises ConfigError."""
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
        raise invalid(key, name, "a file of printable ASCII characters") from error
    if not 1 <= len(lines) <= MAX_SECRETS or any(len(line) < MIN_SECRET for line in lines):
        raise invalid(key, name, f"a file with a secret of at least {MIN_SECRET} characters on each line")
    return structs.replace(server, admin_secret="\n".join(lines))


def is_header_safe(secret: str) -> bool:
    """Return whether an HTTP header can carry the secret."""
    return HEADER_SAFE.fullmatch(secret) is not None
