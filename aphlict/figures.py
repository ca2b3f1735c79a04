"""What the status page counts."""

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
