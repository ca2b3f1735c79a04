"""State that connections share: one context for each event loop, one for each port."""

import itertools
import time
from collections import deque

from aphlict.config.settings import Limits
from aphlict.core.endings import EndedConnections
from aphlict.core.metrics import ConnectionCounters
from aphlict.core.stats import LimitCounters
from aphlict.protocol.forwarded import TrustedProxies
from aphlict.server.access import AdminAccess, OriginAccess
from aphlict.server.limits import CommandDebts, Limiter
from aphlict.server.poller import Poller
from aphlict.server.timer_wheel import TimerWheel
from aphlict.server.tls_socket import make_bridge
from aphlict.server.write_buffer import MAX_BACKLOGS, Backlog, BufferBudget, WriteBuffer
from aphlict.tls.authorities import Authorities
from aphlict.tokens.key_set import KeySet


class ServerContext:
    """State that all connections of an event loop share. `now` is a monotonic time in seconds."""

    def __init__(self, limits: Limits, limit_counters: LimitCounters, now: float) -> None:
        self.limits = limits
        self.limit_counters = limit_counters
        self.counters = ConnectionCounters()
        self.ended = EndedConnections()
        self.backlogs: deque[Backlog] = deque(maxlen=MAX_BACKLOGS)
        self.poller = Poller()
        self.tls_bridge = make_bridge()
        self.timers = TimerWheel(now)
        self.buffer_budget = BufferBudget(limits)
        self.debts = CommandDebts()
        self.numbers = itertools.count(1)  # of connections, for the log

    def on_drained(self, number: int, buffer: WriteBuffer) -> None:
        """Note that the connection with this number has accepted all that was buffered."""
        self.backlogs.append(Backlog(number, buffer.since, time.monotonic()))

    def reload(self, limits: Limits) -> None:
        """Apply other limits, to present connections as well."""
        self.limits = limits
        self.buffer_budget.reload(limits)


class PortContext:
    """State that the connections of one port share.

    `is_trusted`: clients are publishers, whose requests are not charged against `limits.commands`, may be pipelined,
    and may take as long as `limits.body.time`. `origins` and `keys` apply to client ports; `access` checks requests
    to an admin port, and knows the names of the host on both. `keys` is None if the port requires no tokens,
    `authorities` if it requires no client certificates.
    """

    proxies = TrustedProxies(())
    keys: KeySet | None = None
    authorities: Authorities | None = None
    access: AdminAccess
    origins: OriginAccess

    def __init__(self, server: ServerContext, limiter: Limiter, *, is_trusted: bool) -> None:
        self.server = server
        self.limiter = limiter
        self.is_trusted = is_trusted
