"""What addresses owe: the units of `limits.commands` that their connections had spent when they ended."""

from aphlict.config.settings import Limits
from aphlict.net.door import party

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
        if units <= (limits.limits_commands_burst // FORGIVEN if forgives else 0):
            return
        self._paid_at.setdefault(party(address), []).append(now + units / limits.limits_commands)
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
            units = max(0, round((paid_at.pop() - now) * limits.limits_commands))
        if not paid_at:
            self._paid_at.pop(key, None)
        burst = limits.limits_commands_burst
        self.add(address, units - burst, now, limits)
        return min(units, burst)
