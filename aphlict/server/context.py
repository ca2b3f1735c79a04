"""What the connections of a process share."""

import itertools
from typing import Protocol

from aphlict.config.settings import Limits
from aphlict.core.stats import LimitCounters
from aphlict.server.limits import Debts
from aphlict.server.poller import Poller
from aphlict.server.timer_wheel import TimerWheel
from aphlict.server.tls_socket import make_bridge
from aphlict.server.write_buffer import BufferBudget


class Surroundings:
    """What all connections of a process share."""

    def __init__(self, limits: Limits, hits: LimitCounters, now: float) -> None:
        self.limits = limits
        self.hits = hits
        self.poller = Poller()
        self.bridge = make_bridge()
        self.deadlines = TimerWheel(now)
        self.pool = BufferBudget(limits)
        self.debts = Debts()
        self.numbers = itertools.count(1)

    def reload(self, limits: Limits) -> None:
        """Use other limits from now on."""
        self.limits = limits
        self.pool.reload(limits)


class Doorkeeper(Protocol):
    """Who counts the connections that are in."""

    def rename(self, before: str | None, after: str | None, /) -> None:
        """One from an address turns out to come from another; None for a proxy that speaks for nobody.

        Raises TooManyFromAddress; it is in all the same.
        """

    def leave(self, address: str | None, /) -> None:
        """One from this address has ended."""
