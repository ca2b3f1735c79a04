"""The names of this machine, as far as it knows them without asking the network."""

import socket
from collections.abc import Iterator
from pathlib import Path

from aphlict.config.settings import Settings

HOSTS, RESOLVER = Path("/etc/hosts"), Path("/etc/resolv.conf")


def own_names(settings: Settings) -> frozenset[str]:
    """The host's name, with and without the domains that it searches; what its operator wrote into /etc/hosts; and
    the names of `cluster`, of which one may be this node's."""
    host = socket.gethostname()
    searched = [f"{host}.{domain}" for domain in _words(RESOLVER, "search", "domain")]
    return frozenset([host, *searched, *_names_in_hosts(), *(peer.host for peer in settings.cluster)])


def _names_in_hosts() -> Iterator[str]:
    for line in _lines(HOSTS):
        yield from line.partition("#")[0].split()[1:]


def _words(path: Path, *keys: str) -> Iterator[str]:
    for line in _lines(path):
        key, _, rest = line.partition(" ")
        if key in keys:
            yield from rest.split()


def _lines(path: Path) -> list[str]:
    """None where the file cannot be read: then there are fewer names."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
