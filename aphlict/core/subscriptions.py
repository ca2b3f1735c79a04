"""Which subscriber listens to what, within one instance."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from aphlict.core.budget import Holder
from aphlict.core.history import InstanceHistory
from aphlict.core.message import Delivery, random_name

STRIDE = 4096  # receivers put into groups in a row: a millisecond
SUBSCRIPTION_COST = 270  # bytes beside its name, where it takes most: two of a channel, Python 3.10
UNICODE_COST = 8  # bytes of a letter in a name that is not ASCII: 4 in the text, 4 in its UTF-8 form


def subscription_cost(names: Collection[str]) -> int:
    """Bytes that subscriptions to these channels take at most."""
    text = "".join(names)
    if not text.isascii():
        return sum(SUBSCRIPTION_COST + len(name) * (1 if name.isascii() else UNICODE_COST) for name in names)
    return SUBSCRIPTION_COST * len(names) + len(text)


class Receiver(Protocol):
    """The connection side of a subscriber. Neither method raises or waits."""

    @property
    def holder(self) -> Holder:
        """The connection that they are sent over: what its subscriptions take is attributed to it."""

    def deliver(self, delivery: Delivery, /) -> None:
        """Send one message."""

    def deliver_all(self, deliveries: Iterator[Delivery], /) -> None:
        """Send a replay before anything that is delivered later, pulling messages as the network takes them.

        The iterator raises HistoryEvicted where the history no longer has a message.
        """


class SubscriberSet:
    """The subscribers of a channel that has more than one, and a snapshot of them that lasts until they change."""

    __slots__ = ("_snapshot", "members")

    def __init__(self, members: set[Receiver]) -> None:
        self.members = members
        self._snapshot: tuple[Receiver, ...] | None = None

    def add(self, member: Receiver) -> None:
        """Add a member."""
        self.members.add(member)
        self._snapshot = None

    def discard(self, member: Receiver) -> None:
        """Take a member away."""
        self.members.discard(member)
        self._snapshot = None

    def snapshot(self) -> tuple[Receiver, ...]:
        """The members now, as a value that never changes."""
        if self._snapshot is None:
            self._snapshot = tuple(self.members)
        return self._snapshot


class ChannelMatch(NamedTuple):
    """A channel of a message, and its listeners, of which there is at least one."""

    name: str
    receivers: tuple[Receiver, ...]


class Group(NamedTuple):
    """Receivers of a message that subscribed to the same ones of its channels."""

    channels: tuple[str, ...]
    receivers: tuple[Receiver, ...]


class SubscriptionIndex:
    """The channels of an instance. A channel with one subscriber, the common case, holds just that one."""

    __slots__ = ("_crowds", "_single")

    def __init__(self) -> None:
        self._single: dict[str, Receiver] = {}
        self._crowds: dict[str, SubscriberSet] = {}

    def __len__(self) -> int:
        return len(self._single) + len(self._crowds)

    def add(self, name: str, receiver: Receiver) -> None:
        """Let the receiver listen to the channel."""
        crowd = self._crowds.get(name)
        if crowd is not None:
            crowd.add(receiver)
            return
        other = self._single.setdefault(name, receiver)
        if other is not receiver:
            del self._single[name]
            self._crowds[name] = SubscriberSet({other, receiver})

    def discard(self, name: str, receiver: Receiver) -> None:
        """Let the receiver listen to the channel no longer."""
        crowd = self._crowds.get(name)
        if crowd is None:
            if self._single.get(name) is receiver:
                del self._single[name]
            return
        crowd.discard(receiver)
        if len(crowd.members) == 1:
            del self._crowds[name]
            self._single[name] = crowd.members.pop()

    def listeners(self, name: str) -> tuple[Receiver, ...]:
        """Who listens to one channel."""
        crowd = self._crowds.get(name)
        if crowd is not None:
            return crowd.snapshot()
        single = self._single.get(name)
        return () if single is None else (single,)

    def heard(self, names: Iterable[str]) -> list[ChannelMatch]:
        """Which of these channels have listeners, and who they are. A receiver may listen to several."""
        single, crowds = self._single, self._crowds
        heard: list[ChannelMatch] = []
        for name in names:
            if name in single:
                heard.append(ChannelMatch(name, (single[name],)))
            elif name in crowds:
                heard.append(ChannelMatch(name, crowds[name].snapshot()))
        return heard

    def match(self, names: Iterable[str]) -> list[Group]:
        """Who listens to any of these channels, each once, grouped by the channels that they listen to."""
        return [group for group in grouped(self.heard(names)) if isinstance(group, Group)]


def grouped(heard: Sequence[ChannelMatch]) -> Iterator[Group | int]:
    """Put receivers that listen to the same ones of these channels together; each receiver is in one group.

    That takes time where there are very many: now and then it yields, as a number, how much it has done.
    """
    if len(heard) == 1:
        yield Group((heard[0].name,), heard[0].receivers)
        return
    found: dict[Receiver, tuple[str, ...]] = {}
    for name, receivers in heard:
        for start in range(0, len(receivers), STRIDE):
            _add(found, name, receivers[start : start + STRIDE])
            yield min(STRIDE, len(receivers) - start)
    groups: dict[tuple[str, ...], list[Receiver]] = {}
    for number, (receiver, names) in enumerate(found.items(), 1):
        groups.setdefault(names, []).append(receiver)
        if number % STRIDE == 0:
            yield STRIDE
    for channels, members in groups.items():
        yield Group(channels, tuple(members))


def _add(found: dict[Receiver, tuple[str, ...]], name: str, receivers: Sequence[Receiver]) -> None:
    """These receivers listen to this channel too. Most had the same ones before, and share what comes of it."""
    grown: dict[tuple[str, ...], tuple[str, ...]] = {}
    for receiver in receivers:
        before = found.get(receiver, ())
        after = grown.get(before)
        if after is None:
            after = grown[before] = (*before, name)
        found[receiver] = after


ORIGIN_SIZE = 16  # letters of the name that stands for the beginning of a history


class Instance:
    """Everything of one instance. Messages of one never meet those of another."""

    __slots__ = ("channels", "history", "name", "queue", "subscribers")

    def __init__(self, name: str, lost: int = 0, lost_at: float = 0.0) -> None:
        self.name = name
        self.channels = SubscriptionIndex()
        self.history = InstanceHistory(random_name(ORIGIN_SIZE), lost, lost_at)
        self.subscribers = 0
        self.queue: deque[Iterator[int]] = deque()  # fan-outs and replays that are not done, in order


class Subscriber:
    """One browser in the eyes of the hub. `subscriptions`: channel to the sequence at which it was added."""

    __slots__ = ("instance", "receiver", "subscriptions")

    def __init__(self, instance: Instance, receiver: Receiver) -> None:
        self.instance = instance
        self.receiver = receiver
        self.subscriptions: dict[str, int] = {}
