"""What addresses owe: the units of `limits.commands` that their connections had spent when they ended."""

from aphlict.config.settings import Limits
from aphlict.net.door import party

MAX_PARTIES = 4096  # addresses that are remembered: 1 MB
MAX_SECONDS = 60.0  # after which a debt has been paid, however large it was
FORGIVEN = 8  # one in so many of the burst: what a page spends that is opened, and left at once


class Debts:
    """By address, and by /64 network in IPv6. A debt is paid as a connection's is: at `limits.commands` a second."""

    def __init__(self) -> None:
        self._owed: dict[
            str, tuple[float, float]
        ] = {}  # units, and the time as of which; the latest entry last

    def add(self, address: str, units: int, now: float, limits: Limits, *, forgives: bool = True) -> None:
        """A connection that has spent so many units ends. Few are forgiven, unless told otherwise: a whole company
        may share an address."""
        if units <= (limits.limits_commands_burst // FORGIVEN if forgives else 0):
            return
        key = party(address)
        owed = self._left(key, now, limits) + units
        self._owed.pop(key, None)
        self._owed[key] = min(owed, MAX_SECONDS * limits.limits_commands), now
        if len(self._owed) > MAX_PARTIES:
            del self._owed[next(iter(self._owed))]

    def take(self, address: str, now: float, limits: Limits) -> int:
        """Move a debt to a new connection: its burst at most, so that it is slow, but not locked out."""
        if not self._owed:
            return 0
        key = party(address)
        left = self._left(key, now, limits)
        taken = min(round(left), limits.limits_commands_burst)
        self._owed.pop(key, None)
        if left > taken:
            self._owed[key] = left - taken, now
        return taken

    def _left(self, key: str, now: float, limits: Limits) -> float:
        owed, since = self._owed.get(key, (0.0, now))
        return max(0.0, owed - (now - since) * limits.limits_commands)
