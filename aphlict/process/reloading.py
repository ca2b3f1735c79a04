"""Reading the configuration again while the server runs: which of it applies now, and what waits for a restart."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from msgspec import structs

from aphlict.config import reading
from aphlict.config.files import FileReader
from aphlict.config.rules import PEER_FILES, SERVER_FILES
from aphlict.config.settings import PeerSettings, ServerSettings, Settings

FIXED = ("pidfile", "user", "group", "workers")

# Keys of a server that make sense only together; the first one says whether the server has them.
TOGETHER = (
    ("ssl_key", "ssl_cert", "ssl_chain"),
    ("ssl_ca",),
    ("admin_secret", "admin_secret_file"),
    ("admin_hosts",),
    ("auth_keys", "auth_audience"),
    ("origins",),
    ("proxy_protocol",),
    ("proxy_trusted",),
)

Identity = tuple[str, str, int]


def read_again(
    config: Path, current: Settings, files: FileReader, earlier: FileReader
) -> tuple[Settings, list[str]]:
    """Return the settings to go on with, and the keys whose change waits for a restart.

    `files` reads the files that they name; what is no longer named, but still in use, is taken from `earlier`.
    Raises ConfigError when the file is wrong.
    """
    settings, waiting = merge(reading.read(config, read=files.read), current)
    files.adopt(earlier, _paths(settings))
    return settings, waiting


def merge(new: Settings, current: Settings) -> tuple[Settings, list[str]]:
    """The new settings, as far as they can apply to the ports, peers and processes of the current ones; and the keys
    whose change waits for a restart. The servers keep the order of the current ones.
    """
    servers, waiting = _merge_servers(new.servers, current.servers)
    cluster = {_peer_identity(peer): peer for peer in new.cluster}
    if cluster.keys() != {_peer_identity(peer) for peer in current.cluster}:
        waiting.append("cluster")
    fixed = [key for key in FIXED if getattr(new, key) != getattr(current, key)]
    merged = structs.replace(
        new,
        servers=servers,
        cluster=tuple(cluster.get(_peer_identity(peer), peer) for peer in current.cluster),
        **{key: getattr(current, key) for key in fixed},
    )
    return merged, waiting + fixed


def _merge_servers(
    new: Sequence[ServerSettings], current: Sequence[ServerSettings]
) -> tuple[tuple[ServerSettings, ...], list[str]]:
    there = {_identity(server): server for server in new}
    lost = [server for server in current if _identity(server) not in there]
    added = [index for index, server in enumerate(new) if _identity(server) not in map(_identity, current)]
    merged = {_identity(server): there.get(_identity(server), server) for server in current}
    waiting: list[str] = []
    for server in lost:
        place = next((index for index in added if new[index].type == server.type), None)
        if place is None:
            waiting.append(f"servers ({server.type} {server.address}:{server.port}, no longer there)")
            continue
        added.remove(place)
        merged[_identity(server)], keys = _merge_moved(new[place], server)
        waiting += (f"servers[{place}].{key}" for key in keys)
    waiting += (f"servers[{index}] (new)" for index in added)
    return tuple(merged[_identity(server)] for server in current), waiting


def _merge_moved(new: ServerSettings, current: ServerSettings) -> tuple[ServerSettings, list[str]]:
    """A server whose port or address has changed: on the old port, keys and certificates are replaced by those that
    follow them. What is only there before, or only after, waits: it may protect one of the two ports alone.
    """
    changes: dict[str, object] = {}
    waiting = [key for key in ("port", "listen") if getattr(new, key) != getattr(current, key)]
    for names in TOGETHER:
        before, after = (getattr(each, names[0]) for each in (current, new))
        if before and after:
            changes |= {name: getattr(new, name) for name in names}
        elif before or after:
            waiting += (_key(name) for name in names if getattr(new, name) != getattr(current, name))
    return structs.replace(current, **changes), waiting


def _key(attribute: str) -> str:
    return next(each.encode_name for each in structs.fields(ServerSettings) if each.name == attribute)


def _identity(server: ServerSettings) -> Identity:
    return server.type, server.address, server.port


def _peer_identity(peer: PeerSettings) -> Identity:
    return peer.protocol, peer.host, peer.port


def _paths(settings: Settings) -> Iterator[str]:
    """The files that the settings name."""
    for server in settings.servers:
        yield from server.auth_keys
    named = chain(
        (getattr(server, name) for server in settings.servers for name in SERVER_FILES),
        (getattr(peer, name) for peer in settings.cluster for name in PEER_FILES),
    )
    yield from (path for path in named if path is not None)
