"""Who may come in: counts the connections, all together, by address, and those of a moment."""

import socket
from collections.abc import Iterable

from aphlict.errors import TooManyConnections, TooManyFromAddress

PORCH = 32  # connections for which there is no room that are told so at a time
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


class Door:
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


class Porch:
    """Where those are told for whom there is no room: few at a time, the others are closed without a word. And where
    those are who have not said yet for whom they are: as many as there is room for inside."""

    def __init__(self) -> None:
        self.inside = 0

    def enter(self, room: int = PORCH) -> bool:
        """Whether there is room for one more, which must `leave` in the end."""
        if self.inside >= max(room, PORCH):
            return False
        self.inside += 1
        return True

    def rename(self, _before: str | None, _after: str | None, /) -> None:
        """Whoever it is, there is no room."""

    def leave(self, _address: str | None, /) -> None:
        """Forget one."""
        self.inside -= 1


class SideDoor:
    """For those who are not counted: a balancer that looks whether the server is well."""

    def rename(self, _before: str | None, _after: str | None, /) -> None:
        """Whoever it is, it is not counted."""

    def leave(self, _address: str | None, /) -> None:
        """It was not counted."""


class Pace:
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
