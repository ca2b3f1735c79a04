"""Limits of connections: in total, for each address and each second; what memory and descriptors allow."""

import os
import resource
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from aphlict.config.machine import control_groups
from aphlict.config.settings import Limits, Settings
from aphlict.errors import TooManyConnections, TooManyFromAddress

MAX_REJECTIONS = 32  # connections beyond the limit that receive an error response at the same time
IPV6_NETWORK_SIZE = 8  # bytes of an IPv6 address that identify its /64 network (RFC 4291, 2.5.4)
_IPV4_MAPPED = bytes(10) + b"\xff\xff"  # prefix of an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2)


def limit_key(address: str) -> str:
    """Return the key by which an address is counted: for IPv6 its /64 network, which one customer owns."""
    if ":" not in address:
        return address
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        return address
    return address if packed.startswith(_IPV4_MAPPED) else packed[:IPV6_NETWORK_SIZE].hex()


class Limiter(Protocol):
    """Counts the connections of a port. An address is None for a proxy whose client is not known yet."""

    def rekey(self, before: str | None, after: str | None, /) -> None:
        """Count a connection for another address.

        Raises TooManyFromAddress; the connection is counted for it all the same.
        """

    def release(self, address: str | None, /) -> None:
        """A connection that was counted for this address has ended."""


class ConnectionLimiter:
    """Counts connections in total; by address only if that is limited, as 100,000 counters take megabytes."""

    def __init__(
        self,
        max_connections: int,
        max_from_address: int | None,
        error: type[TooManyConnections] = TooManyConnections,
    ) -> None:
        """`error` is raised if `max_connections` is reached."""
        self.used = 0
        self._error = error
        self._max_connections = max_connections
        self._max_from_address = max_from_address
        self._by_key: dict[str, int] = {}

    def reload(self, max_connections: int, max_from_address: int | None, addresses: Iterable[str]) -> None:
        """Apply other limits to new connections. `addresses` are those of all present connections."""
        self._max_connections = max_connections
        self._max_from_address = max_from_address
        self._by_key = {}
        if max_from_address is not None:
            for address in addresses:
                self._add(address)

    @property
    def available(self) -> int:
        """How many more connections are allowed."""
        return self._max_connections - self.used

    def acquire(self, address: str | None) -> None:
        """Count a connection, which must be released. Raises TooManyConnections, TooManyFromAddress."""
        if self.used >= self._max_connections:
            raise self._error(f"this server accepts {self._max_connections} connections")
        if address is not None and self._max_from_address is not None:
            self._check(address, self._max_from_address)
            self._add(address)
        self.used += 1

    def rekey(self, before: str | None, after: str | None, /) -> None:
        """Part of Limiter."""
        if self._max_from_address is not None:
            self._remove(before)
            if after is None:
                return
            try:
                self._check(after, self._max_from_address)
            finally:
                self._add(after)

    def release(self, address: str | None, /) -> None:
        """Part of Limiter."""
        self.used -= 1
        if self._by_key:
            self._remove(address)

    def _check(self, address: str, max_from_address: int) -> None:
        if self._by_key.get(limit_key(address), 0) >= max_from_address:
            raise TooManyFromAddress(
                f"this server accepts at most {max_from_address} connections from one address"
            )

    def _add(self, address: str) -> None:
        key = limit_key(address)
        self._by_key[key] = self._by_key.get(key, 0) + 1

    def _remove(self, address: str | None) -> None:
        if address is None:
            return
        key = limit_key(address)
        left = self._by_key.get(key, 0) - 1
        if left > 0:
            self._by_key[key] = left
        else:
            self._by_key.pop(key, None)


class RejectionSlots:
    """Limits how many connections receive an error response as they exceed another limit: further ones are closed
    without a response. Part of Limiter."""

    def __init__(self) -> None:
        self.used = 0

    def acquire(self) -> bool:
        """Return whether there is a slot, which must be released."""
        if self.used >= MAX_REJECTIONS:
            return False
        self.used += 1
        return True

    def rekey(self, _before: str | None, _after: str | None, /) -> None:
        """Do nothing: no address has slots of its own."""

    def release(self, _address: str | None, /) -> None:
        """Release a slot."""
        self.used -= 1


class PendingSlots:
    """Limits how many connections wait for their PROXY header to as many as would be accepted after it."""

    def __init__(self) -> None:
        self.used = 0

    def acquire(self, available: int) -> bool:
        """Return whether there is a slot, which must be released. `available`: connections that may be accepted."""
        if self.used >= max(available, MAX_REJECTIONS):
            return False
        self.used += 1
        return True

    def release(self) -> None:
        """Release a slot."""
        self.used -= 1


class NoLimit:
    """A Limiter of connections that are not counted: health checks of a proxy."""

    def rekey(self, _before: str | None, _after: str | None, /) -> None:
        """Do nothing."""

    def release(self, _address: str | None, /) -> None:
        """Do nothing."""


class TokenBucket:
    """Limits how many new connections are accepted each second; the others wait in the kernel's backlog."""

    def __init__(self, rate: int | None) -> None:
        """`rate`: connections a second; None: no limit."""
        self.rate = rate
        self._tokens = float(rate or 0)

    def refill(self, seconds: float) -> None:
        """Add the tokens of a time that has passed."""
        self._tokens = min(self._tokens + (self.rate or 0) * seconds, self.rate or 0)

    @property
    def is_empty(self) -> bool:
        """Whether no connection may be accepted now."""
        return self.rate is not None and self._tokens < 1

    def take(self) -> None:
        """Take the token of one connection."""
        if self.rate is not None:
            self._tokens -= 1


MAX_DEBTS = 4096  # of all addresses: half a MiB
FORGIVEN_PART = (
    8  # one unit in so many of the burst is forgiven: a page that is opened and closed costs that much
)


class CommandDebts:
    """Debts of connections that have ended: reconnecting must not reset `limits.commands`.

    A debt passes to the next connection from the same address, for IPv6 from the same /64 network. Until then it
    decreases as that of an open connection does, by `limits.commands` a second.
    """

    def __init__(self) -> None:
        self._paid_at: dict[str, list[float]] = {}  # key of an address -> when each debt will be paid
        self._count = 0

    def add(self, address: str, units: int, now: float, limits: Limits, *, forgives: bool = True) -> None:
        """Add the debt of a connection. With `forgives`, a small one is forgotten: the users of a whole company may
        share an address."""
        if units <= (limits.commands_burst // FORGIVEN_PART if forgives else 0):
            return
        self._paid_at.setdefault(limit_key(address), []).append(now + units / limits.commands)
        self._count += 1
        if self._count > MAX_DEBTS:
            self._count -= len(self._paid_at.pop(next(iter(self._paid_at))))

    def take(self, address: str, now: float, limits: Limits) -> int:
        """Move a debt to a new connection, at most its burst: it shall be slow, but not locked out."""
        if not self._paid_at:
            return 0
        key = limit_key(address)
        paid_at = self._paid_at.get(key, [])
        units = 0
        while paid_at and not units:
            self._count -= 1
            units = max(0, round((paid_at.pop() - now) * limits.commands))
        if not paid_at:
            self._paid_at.pop(key, None)
        burst = limits.commands_burst
        self.add(address, units - burst, now, limits)
        return min(units, burst)


RESERVED_DESCRIPTORS = 64  # for peers, logs, listeners and the like
PUBLISHERS_PART = 16  # one connection in so many is for publishers
MIN_CONNECTIONS = 16
MEMORY_PART = 3 / 4  # of the memory is for connections; the rest is for the program and the history
# Bytes of an idle connection, with the kernel's part for its socket (4.8 KB): see docs/performance.md. Send buffers
# have a limit of their own, `limits.send_buffer.total`, and so have the kernel's: `net.ipv4.tcp_mem`.
PLAIN_COST = 6 * 1024
TLS_COST = 22 * 1024


class Capacity(NamedTuple):
    """A number of connections, and the resource that bounds it: "limits.connections", "descriptors" or "memory"."""

    connections: int
    bound: str


def max_publishers(settings: Settings) -> int:
    """Return how many connections all admin ports together accept."""
    return max(MIN_CONNECTIONS, _resources(settings).connections // PUBLISHERS_PART)


def max_clients(settings: Settings) -> Capacity:
    """Return how many connections all client ports together accept: `limits.connections`, or as many as descriptors
    and memory allow."""
    if settings.limits.connections is not None:
        return Capacity(settings.limits.connections, "limits.connections")
    connections, bound = _resources(settings)
    return Capacity(
        max(MIN_CONNECTIONS, connections - max_publishers(settings) - RESERVED_DESCRIPTORS - MAX_REJECTIONS),
        bound,
    )


def capacity_status(settings: Settings) -> dict[str, Any]:
    """Return the keys of the status page that report the capacity of all processes."""
    connections, bound = max_clients(settings)
    return {"connections.max": connections * settings.processes, "connections.bound": bound}


def _resources(settings: Settings) -> Capacity:
    """Return how many connections this process has resources for, on all ports.

    The limit of descriptors is a billion in many containers.
    """
    has_tls = any(server.tls for server in settings.servers if server.type == "client")
    share = available_memory() * MEMORY_PART / settings.processes
    return min(
        Capacity(_descriptors(), "descriptors"),
        Capacity(int(share / (TLS_COST if has_tls else PLAIN_COST)), "memory"),
    )


def _descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process may use: the machine's, or those of its control groups.

    `memory.max` of cgroup v2, `memory.limit_in_bytes` of v1. `root` has /proc and /sys.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    names = {1: "memory.limit_in_bytes", 2: "memory.max"}
    limits = [group.read(names[group.version]).strip() for group in control_groups("memory", root)]
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])  # `max`: no limit
