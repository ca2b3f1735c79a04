"""Counters for the status page and the log."""

import logging

from msgspec import Struct, structs

from aphlict.config.settings import Limits
from aphlict.log_events import (
    LIMIT_REACHED,
    LIMIT_REPEATED,
    LIMIT_REPEATED_BY_OTHERS,
    REFUSED,
    REFUSED_AGAIN,
    REFUSED_OTHERS,
    Aside,
    Times,
)

log = logging.getLogger(__name__)

_COUNTED_AS_ANOTHER = {"limits.commands.burst", "ping.interval"}
LIMIT_NAMES = [
    each.encode_name for each in structs.fields(Limits) if each.encode_name not in _COUNTED_AS_ANOTHER
]
# Checks that refuse a client or publisher, and a limit of the admin ports: counted like limits.
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
MAX_LINES = 100  # of the log for one limit between two sweeps, and addresses that are counted separately


class SubscriberStats(Struct, frozen=True, array_like=True):
    """The counters of a process with subscribers: `active` in one instance, the others in all."""

    active: int = 0
    connections: int = 0
    total: int = 0  # connections since the start
    messages_out: int = 0
    queued: int = 0  # deliveries
    limits: dict[str, int] = {}  # how often each was reached

    def __add__(self, other: "SubscriberStats") -> "SubscriberStats":
        return SubscriberStats(
            self.active + other.active,
            self.connections + other.connections,
            self.total + other.total,
            self.messages_out + other.messages_out,
            self.queued + other.queued,
            {
                key: self.limits.get(key, 0) + other.limits.get(key, 0)
                for key in {**self.limits, **other.limits}
            },
        )


class Counters:
    """What a hub counts since its start."""

    __slots__ = ("bytes_out", "clients_total", "duplicates", "messages_in", "messages_out", "replays")

    def __init__(self) -> None:
        self.clients_total = 0
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_out = 0  # of the payloads of `messages_out`
        self.duplicates = 0
        self.replays = {"recovered": 0, "gap": 0, "age": 0}  # by outcome; "age": by age, which is not known


class LimitCounters:
    """How often each limit was reached. Logs one line for each limit and address between two sweeps.

    The number of lines is bounded for each limit separately, so that clients that reach one limit do not hide
    those that reach another.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._repeated: dict[str, dict[str, int]] = {}  # limit to address to count since the logged line
        self._unlogged: dict[str, int] = {}  # limit to count, of addresses beyond MAX_LINES

    def add(self, limit: str, address: str, detail: str = "") -> None:
        """Count that a client at this address reached the limit, which is named by its configuration key.

        `detail` is logged with the first of several in a minute.
        """
        self.count(limit)
        repeated = self._repeated.setdefault(limit, {})
        if address in repeated:
            repeated[address] += 1
        elif len(repeated) >= MAX_LINES:
            self._unlogged[limit] = self._unlogged.get(limit, 0) + 1
        else:
            repeated[address] = 0
            log.warning(REFUSED if _is_check(limit) else LIMIT_REACHED, limit, address, Aside(detail))

    def count(self, limit: str) -> None:
        """Count without logging, where the event is normal."""
        self.counts[limit] = self.counts.get(limit, 0) + 1

    def sweep(self) -> None:
        """Log the repetitions since the last sweep. To be called every minute."""
        for limit, addresses in self._repeated.items():
            for address, count in addresses.items():
                if count:
                    log.warning(
                        REFUSED_AGAIN if _is_check(limit) else LIMIT_REPEATED, limit, address, Times(count)
                    )
        for limit, count in self._unlogged.items():
            event = REFUSED_OTHERS if _is_check(limit) else LIMIT_REPEATED_BY_OTHERS
            log.warning(event, limit, Times(count))
        self._repeated.clear()
        self._unlogged.clear()


def _is_check(limit: str) -> bool:
    return limit in REFUSALS and limit != "admin.connections"
