"""Who may come in: counts the connections, all together, by address, and those of a moment."""

import os
import resource
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from aphlict.config.machine import control_groups
from aphlict.config.settings import Limits, Settings
from aphlict.errors import TooManyConnections, TooManyFromAddress

MAX_PENDING = 32  # connections for which there is no room that are told so at a time
SUBNET = (
    8  # bytes of an IPv6 address that are its network's: who has one has all that begin so (RFC 4291, 2.5.4)
)
_MAPPED = bytes(10) + b"\xff\xff"  # what an IPv4 address begins with in IPv6 (RFC 4291, 2.5.5.2)


def party(address: str) -> str:
    """Who counts as one with this address: in IPv6 all of its /64 network, which is what a customer is given."""
    if ":" not in address:
        return address
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        return address
    return address if packed.startswith(_MAPPED) else packed[:SUBNET].hex()


class ConnectionLimiter:
    """Counts who is in. By address only where that is limited: a hundred thousand counters are megabytes."""

    def __init__(
        self, most: int, most_from_address: int | None, full: type[TooManyConnections] = TooManyConnections
    ) -> None:
        self.inside = 0
        self._full = full
        self._most = most
        self._most_from_address = most_from_address
        self._parties: dict[str, int] = {}

    def reload(self, most: int, most_from_address: int | None, addresses: Iterable[str]) -> None:
        """Use other bounds for who comes from now on. `addresses` are those of all who are in."""
        self._most = most
        self._most_from_address = most_from_address
        self._parties = {}
        if most_from_address is not None:
            for address in addresses:
                self._count(address)

    @property
    def room(self) -> int:
        """How many more may come in."""
        return self._most - self.inside

    def _count(self, address: str) -> None:
        key = party(address)
        self._parties[key] = self._parties.get(key, 0) + 1

    def enter(self, address: str | None) -> None:
        """Let one in, which must `leave` in the end; None where a proxy has yet to say who it is.

        Raises TooManyConnections, TooManyFromAddress.
        """
        if self.inside >= self._most:
            raise self._full(f"this server has room for {self._most} connections")
        if address is not None and self._most_from_address is not None:
            self._check(address, self._most_from_address)
            self._count(address)
        self.inside += 1

    def _check(self, address: str, most: int) -> None:
        if self._parties.get(party(address), 0) >= most:
            raise TooManyFromAddress(f"an address may have {most} connections")

    def rename(self, before: str | None, after: str | None) -> None:
        """One that is in turns out to come from another address; None for a proxy that speaks for nobody.

        Raises TooManyFromAddress; it is in all the same.
        """
        if self._most_from_address is not None:
            self._uncount(before)
            if after is None:
                return
            try:
                self._check(after, self._most_from_address)
            finally:
                self._count(after)

    def leave(self, address: str | None) -> None:
        """Forget one; the address is that which it was counted by."""
        self.inside -= 1
        if self._parties:
            self._uncount(address)

    def _uncount(self, address: str | None) -> None:
        if address is None:
            return
        key = party(address)
        left = self._parties.get(key, 0) - 1
        if left > 0:
            self._parties[key] = left
        else:
            self._parties.pop(key, None)


class PendingSlots:
    """Where those are told for whom there is no room: few at a time, the others are closed without a word. And where
    those are who have not said yet for whom they are: as many as there is room for inside."""

    def __init__(self) -> None:
        self.inside = 0

    def enter(self, room: int = MAX_PENDING) -> bool:
        """Whether there is room for one more, which must `leave` in the end."""
        if self.inside >= max(room, MAX_PENDING):
            return False
        self.inside += 1
        return True

    def rename(self, _before: str | None, _after: str | None, /) -> None:
        """Whoever it is, there is no room."""

    def leave(self, _address: str | None, /) -> None:
        """Forget one."""
        self.inside -= 1


class NoLimit:
    """For those who are not counted: a balancer that looks whether the server is well."""

    def rename(self, _before: str | None, _after: str | None, /) -> None:
        """Whoever it is, it is not counted."""

    def leave(self, _address: str | None, /) -> None:
        """It was not counted."""


class TokenBucket:
    """How many new connections a second are accepted: the others wait with the kernel until their turn comes."""

    def __init__(self, a_second: int | None) -> None:
        self.a_second = a_second
        self._left = float(a_second or 0)

    def refill(self, seconds: float) -> None:
        """So much time has passed since the last time."""
        self._left = min(self._left + (self.a_second or 0) * seconds, self.a_second or 0)

    @property
    def is_spent(self) -> bool:
        """Whether no more may be accepted for now."""
        return self.a_second is not None and self._left < 1

    def take(self) -> None:
        """One was accepted."""
        if self.a_second is not None:
            self._left -= 1


MAX_DEBTS = 4096  # that are remembered, of all addresses: half a MiB
FORGIVEN = 8  # one in so many of the burst: what a page spends that is opened, and left at once


class Debts:
    """Each debt is that of one connection, and goes to one that comes from the same address, or in IPv6 from the same
    /64 network. Until then it is paid as by a connection that stays: at `limits.commands` a second."""

    def __init__(self) -> None:
        self._paid_at: dict[str, list[float]] = {}  # by address: when each will have been paid
        self._count = 0

    def add(self, address: str, units: int, now: float, limits: Limits, *, forgives: bool = True) -> None:
        """A connection that has spent so many units ends. Few are forgiven, unless told otherwise: a whole company
        may share an address."""
        if units <= (limits.commands_burst // FORGIVEN if forgives else 0):
            return
        self._paid_at.setdefault(party(address), []).append(now + units / limits.commands)
        self._count += 1
        if self._count > MAX_DEBTS:
            self._count -= len(self._paid_at.pop(next(iter(self._paid_at))))

    def take(self, address: str, now: float, limits: Limits) -> int:
        """Move a debt to a new connection: its burst at most, so that it is slow, but not locked out."""
        if not self._paid_at:
            return 0
        key = party(address)
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


OTHERS = 64  # descriptors for peers, logs, listeners and the like
ADMIN_PART = 16  # one connection in so many is for publishers
LEAST = 16
MEMORY_PART = 3 / 4  # of the memory is for connections; the rest is for the program and the history
# Bytes of an idle connection, with the kernel's part for its socket (4.8 KB): see docs/performance.md. Send
# buffers have their own limit, `limits.send_buffer.total`, and so have those of the kernel: `net.ipv4.tcp_mem`.
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
    if settings.limits.connections is not None:
        return Capacity(settings.limits.connections, "limits.connections")
    places, bound = _places(settings)
    return Capacity(max(LEAST, places - for_publishers(settings) - OTHERS - MAX_PENDING), bound)


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
    limits = [group.read(names[group.version]).strip() for group in control_groups("memory", root)]
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())])  # `max`: no limit
