"""How often each limit was hit, and the lines of the log that tell of it: few, however often that is."""

import logging

from msgspec import Struct, structs

from aphlict.config.settings import Limits

COUNT_AS_ANOTHER = {"limits.commands.burst", "ping.interval"}
LIMIT_NAMES = [
    each.encode_name for each in structs.fields(Limits) if each.encode_name not in COUNT_AS_ANOTHER
]
# Counted like limits.
REFUSALS = [
    "origins",
    "auth.keys",
    "proxy.protocol",
    "admin.pages",
    "admin.hosts",
    "admin.secret",
    "admin.connections",
    "ssl.ca",
    "ssl.records",
]


class Subscribed(Struct, frozen=True, array_like=True):
    """The figures that count browsers: of one instance, and of all since the start."""

    active: int = 0
    connections: int = 0
    total: int = 0
    messages_out: int = 0
    waiting: int = 0  # deliveries that wait for their turn
    limits: dict[str, int] = {}  # how often each was hit

    def __add__(self, other: "Subscribed") -> "Subscribed":
        return Subscribed(
            self.active + other.active,
            self.connections + other.connections,
            self.total + other.total,
            self.messages_out + other.messages_out,
            self.waiting + other.waiting,
            {
                key: self.limits.get(key, 0) + other.limits.get(key, 0)
                for key in {**self.limits, **other.limits}
            },
        )


class Counters:
    """What the status page counts since the start."""

    __slots__ = ("clients_total", "duplicates", "messages_in", "messages_out")

    def __init__(self) -> None:
        self.clients_total = 0
        self.messages_in = 0
        self.messages_out = 0
        self.duplicates = 0


log = logging.getLogger(__name__)

MOST_TOLD = 100  # lines of one limit between two sweeps, and entries that are kept for them


class LimitCounters:
    """Counts for the status page; in the log, one line for each limit and address between two sweeps.

    That bounds what goes to the log, for each limit by itself: strangers who run into one do not hide another.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._more: dict[str, dict[str, int]] = {}  # limit to address to how often since it was told
        self._untold: dict[str, int] = {}

    def add(self, limit: str, address: str, detail: str = "") -> None:
        """Count that something from this address ran into the limit, which is named by its configuration key.

        `detail` goes into the line of the log, if there is one: at most one for each address and minute.
        """
        self.count(limit)
        more = self._more.setdefault(limit, {})
        if address in more:
            more[address] += 1
        elif len(more) >= MOST_TOLD:
            self._untold[limit] = self._untold.get(limit, 0) + 1
        else:
            more[address] = 0
            log.warning("%s was hit by %s%s", limit, address, f" ({detail})" if detail else "")

    def count(self, limit: str) -> None:
        """Count what is no news: nothing goes to the log."""
        self.counts[limit] = self.counts.get(limit, 0) + 1

    def sweep(self) -> None:
        """Sum up what was not told of since the last sweep. To be called every minute."""
        for limit, addresses in self._more.items():
            for address, more in addresses.items():
                if more:
                    log.warning("%s was hit by %s %s", limit, address, _times(more))
        for limit, more in self._untold.items():
            log.warning("%s was hit %s, by yet other addresses", limit, _times(more))
        self._more.clear()
        self._untold.clear()


def _times(more: int) -> str:
    return f"{more:,} more time{'s' * (more != 1)}"
