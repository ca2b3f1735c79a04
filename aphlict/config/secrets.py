"""Secrets that stand in a file of their own: read, and put where those of the configuration are."""

import re

from msgspec import structs

from aphlict.config.descriptions import wrong
from aphlict.config.files import Read, read_file
from aphlict.config.settings import ServerSettings, Settings

SHORTEST = 16
MOST = 16  # secrets in a file: the present one, and those that are being given up
SENDABLE = re.compile(r"[!-~]+")  # what a header can carry without quoting


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
        raise wrong(key, name, "a file that can be read", str(error.strerror)) from error
    except UnicodeDecodeError as error:
        raise wrong(key, name, "a file of letters, digits and signs (ASCII)") from error
    if not 1 <= len(lines) <= MOST or any(len(line) < SHORTEST for line in lines):
        raise wrong(key, name, f"a file with a secret of at least {SHORTEST} characters on each line")
    return structs.replace(server, admin_secret="\n".join(lines))


def is_sendable(secret: str) -> bool:
    """Whether a header can carry it."""
    return SENDABLE.fullmatch(secret) is not None
