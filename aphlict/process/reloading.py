"""Reading the configuration again while the server runs: what may change, what needs a restart."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import structs

from aphlict.config import reading
from aphlict.config.settings import ServerSettings, Settings

FIXED = ("cluster", "pidfile", "user", "group", "workers")


def read_again(config: Path, current: Settings) -> tuple[Settings, list[str]]:
    """Return the settings to go on with, and the keys whose change waits for a restart.

    Raises ConfigError when the file is wrong.
    """
    new = reading.read(config)
    waiting = [key for key in FIXED if getattr(new, key) != getattr(current, key)]
    if _ports(new.servers) != _ports(current.servers):
        waiting.insert(0, "servers")
    return structs.replace(new, **{key: getattr(current, key) for key in waiting}), waiting


def _ports(servers: Sequence[ServerSettings]) -> list[tuple[str, str, int]]:
    return [(server.type, server.address, server.port) for server in servers]
