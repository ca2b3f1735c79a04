"""How many connections this process has room for, and what bounds them."""

import os
import resource
from pathlib import Path
from typing import Any, NamedTuple

from aphlict.config.cgroups import find_groups
from aphlict.config.settings import Settings
from aphlict.net.door import PORCH

OTHERS = 64  # descriptors for peers, logs, listeners and the like
ADMIN_PART = 16  # one connection in so many is for publishers
LEAST = 16
MEMORY_PART = 3 / 4  # of the memory is for connections; the rest is for the program and the history
# Bytes of an idle connection, with the kernel's part for its socket (4.8 KB): see docs/performance.md. What waits for
# slow readers has a bound of its own, `limits.waiting.all`, and so have the kernel's buffers, `net.ipv4.tcp_mem`.
PLAIN_COST = 6 * 1024
TLS_COST = 22 * 1024


class Capacity(NamedTuple):
    """A number of connections, and what bounds it: "limits.connections", "descriptors" or "memory"."""

    connections: int
    bound: str


def for_publishers(settings: Settings) -> int:
    """How many connections the admin ports may have."""
    return max(LEAST, _places(settings).connections // ADMIN_PART)


def for_browsers(settings: Settings) -> Capacity:
    """How many connections the client ports may have: `limits.connections`, or what descriptors and memory allow."""
    if settings.limits_connections is not None:
        return Capacity(settings.limits_connections, "limits.connections")
    places, bound = _places(settings)
    return Capacity(max(LEAST, places - for_publishers(settings) - OTHERS - PORCH), bound)


def status(settings: Settings) -> dict[str, Any]:
    """What the status page says of it: the connections of all processes together."""
    connections, bound = for_browsers(settings)
    return {"connections.max": connections * settings.processes, "connections.bound": bound}


def _places(settings: Settings) -> Capacity:
    """The connections of all ports of this process. The limit of descriptors is a billion in many containers."""
    has_tls = any(server.tls for server in settings.servers if server.type == "client")
    share = memory() * MEMORY_PART / settings.processes
    return min(
        Capacity(_descriptors(), "descriptors"),
        Capacity(int(share / (TLS_COST if has_tls else PLAIN_COST)), "memory"),
    )


def _descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process can have: the machine's, or those of its control groups.

    `memory.max` of cgroup v2, `memory.limit_in_bytes` of v1. `root` has /proc and /sys.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    names = {1: "memory.limit_in_bytes", 2: "memory.max"}
    limits = [group.read(names[group.version]).strip() for group in find_groups("memory", root)]
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])  # `max`: no limit
