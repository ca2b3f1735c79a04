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
    searched = [f"{host}.{domain}" for domain in _domains()]
    return frozenset([host, *searched, *_names_in_hosts(), *(peer.host for peer in settings.cluster)])


def _names_in_hosts() -> Iterator[str]:
    for line in _lines(HOSTS):
        yield from line.partition("#")[0].split()[1:]


def _domains() -> list[str]:
    """The search list: `search` and `domain` exclude each other, and the last line wins (resolv.conf(5))."""
    domains: list[str] = []
    for line in _lines(RESOLVER):
        if line[:1].isspace():  # the keyword must start the line
            continue
        key, *words = line.split() or [""]
        if key == "search":
            domains = words
        elif key == "domain":
            domains = words[:1]
    return domains


def _lines(path: Path) -> list[str]:
    """None where the file cannot be read: then there are fewer names."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
