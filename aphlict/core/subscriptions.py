"""Index of subscriptions: channel to receivers, within one instance; and the memory that subscriptions take."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from aphlict.core.budget import Budget, Holder
from aphlict.core.history import Entry, Evicted, InstanceHistory
from aphlict.core.message import Delivery
from aphlict.errors import SubscriptionsFull

STEP = 4096  # receivers grouped in a row: a millisecond
# A subscription takes this at most in addition to its name: with two subscribers of the channel, on Python 3.10.
SUBSCRIPTION_BYTES = 270
NON_ASCII_BYTES = 8  # for a character of a name that is not ASCII: 4 in the str, 4 in its cached UTF-8 form
# A connection with no more subscriptions is never closed in favour of others: its account in the budget would take
# more memory than closing it frees.
UNATTRIBUTED_SUBSCRIPTIONS = 32
NOTHING = range(0)


class Receiver(Protocol):
    """The connection side of a subscriber. Neither method raises or waits."""

    @property
    def holder(self) -> Holder:
        """The connection to which the memory of the subscriptions is attributed."""

    def deliver(self, delivery: Delivery, /) -> None:
        """Send one message."""

    def deliver_all(self, deliveries: Iterator[Delivery], /) -> None:
        """Send a replay before anything that is delivered later, pulling messages as the network takes them.

        The iterator raises HistoryEvicted where the history no longer has a message.
        """


class SubscriberSet:
    """The receivers of a channel that has more than one, with a snapshot that is valid until they change."""

    __slots__ = ("_snapshot", "members")

    def __init__(self, members: set[Receiver]) -> None:
        self.members = members
        self._snapshot: tuple[Receiver, ...] | None = None

    def add(self, member: Receiver) -> None:
        """Add a member."""
        self.members.add(member)
        self._snapshot = None

    def discard(self, member: Receiver) -> None:
        """Remove a member, if it is one."""
        self.members.discard(member)
        self._snapshot = None

    def snapshot(self) -> tuple[Receiver, ...]:
        """Return the members as a value that does not change, which a fan-out in slices needs."""
        if self._snapshot is None:
            self._snapshot = tuple(self.members)
        return self._snapshot


class ChannelMatch(NamedTuple):
    """A channel of a message that has receivers."""

    name: str
    receivers: tuple[Receiver, ...]


class Group(NamedTuple):
    """Receivers of a message that subscribed to the same ones of its channels."""

    channels: tuple[str, ...]
    receivers: tuple[Receiver, ...]


class SubscriptionIndex:
    """The channels of an instance. Most have one receiver, which takes no set."""

    __slots__ = ("_sets", "_single")

    def __init__(self) -> None:
        self._single: dict[str, Receiver] = {}
        self._sets: dict[str, SubscriberSet] = {}

    def __len__(self) -> int:
        return len(self._single) + len(self._sets)

    def count(self, name: str) -> int:
        """Return the number of receivers of a channel."""
        receivers = self._sets.get(name)
        return int(name in self._single) if receivers is None else len(receivers.members)

    def names_of_single(self, limit: int) -> list[str]:
        """Return some of the channels that have one receiver."""
        return list(islice(self._single, limit))

    def names_of_shared(self) -> list[str]:
        """Return all channels that have more than one receiver."""
        return list(self._sets)

    def add(self, name: str, receiver: Receiver) -> None:
        """Subscribe a receiver to a channel."""
        receivers = self._sets.get(name)
        if receivers is not None:
            receivers.add(receiver)
            return
        other = self._single.setdefault(name, receiver)
        if other is not receiver:
            del self._single[name]
            self._sets[name] = SubscriberSet({other, receiver})

    def discard(self, name: str, receiver: Receiver) -> None:
        """Unsubscribe a receiver from a channel, if it is subscribed."""
        receivers = self._sets.get(name)
        if receivers is None:
            if self._single.get(name) is receiver:
                del self._single[name]
            return
        receivers.discard(receiver)
        if len(receivers.members) == 1:
            del self._sets[name]
            self._single[name] = receivers.members.pop()

    def match(self, names: Iterable[str]) -> list[ChannelMatch]:
        """Return those of the channels that have receivers. One receiver may be in several of them."""
        single, sets = self._single, self._sets
        matches: list[ChannelMatch] = []
        for name in names:
            if name in single:
                matches.append(ChannelMatch(name, (single[name],)))
            elif name in sets:
                matches.append(ChannelMatch(name, sets[name].snapshot()))
        return matches


def group_receivers(matches: Sequence[ChannelMatch]) -> Iterator[Group | int]:
    """Group the receivers by the channels that they have in common; each receiver is in exactly one group.

    With very many receivers this takes time: after each step the iterator yields the number of receivers done.
    """
    if len(matches) == 1:
        yield Group((matches[0].name,), matches[0].receivers)
        return
    channels_of: dict[Receiver, tuple[str, ...]] = {}
    for name, receivers in matches:
        for start in range(0, len(receivers), STEP):
            _add_channel(channels_of, name, receivers[start : start + STEP])
            yield min(STEP, len(receivers) - start)
    groups: dict[tuple[str, ...], list[Receiver]] = {}
    for number, (receiver, names) in enumerate(channels_of.items(), 1):
        groups.setdefault(names, []).append(receiver)
        if number % STEP == 0:
            yield STEP
    for channels, members in groups.items():
        yield Group(channels, tuple(members))


def exclude(matches: Iterable[ChannelMatch], without: Collection[Receiver]) -> list[ChannelMatch]:
    """Return the matches without some of the receivers."""
    left = (ChannelMatch(each.name, tuple(r for r in each.receivers if r not in without)) for each in matches)
    return [each for each in left if each.receivers]


def _add_channel(
    channels_of: dict[Receiver, tuple[str, ...]], name: str, receivers: Sequence[Receiver]
) -> None:
    """Append a channel to those of each receiver. Receivers with equal channels share one tuple."""
    extended: dict[tuple[str, ...], tuple[str, ...]] = {}
    for receiver in receivers:
        before = channels_of.get(receiver, ())
        after = extended.get(before)
        if after is None:
            after = extended[before] = (*before, name)
        channels_of[receiver] = after


class Instance:
    """One instance: its subscriptions and its history. No message passes from one instance to another."""

    __slots__ = ("history", "index", "name", "queue", "replayed", "subscribers")

    def __init__(self, name: str, evicted: Mapping[str, Evicted] | None = None) -> None:
        self.name = name
        self.index = SubscriptionIndex()
        self.history = InstanceHistory(evicted)
        self.subscribers = 0
        self.queue: deque[Iterator[int]] = deque()  # unfinished fan-outs and replays, in order
        self.replayed = NOTHING  # as of the last subscriber with a replay: most can share the object


class Subscriber:
    """A client in the hub. `subscriptions`: channel to the node's sequence at which it was added.

    `replayed`: since its last replay, it has all messages with these sequences on the channels that it had by then.
    """

    __slots__ = ("instance", "receiver", "replayed", "subscriptions")

    def __init__(self, instance: Instance, receiver: Receiver) -> None:
        self.instance = instance
        self.receiver = receiver
        self.subscriptions: dict[str, int] = {}
        self.replayed = NOTHING

    def on_replayed(self, first: int, last: int) -> None:
        """Note that a replay covers the sequences from `first` to `last`."""
        shared = self.instance.replayed
        if shared.start != first or shared.stop != last + 1:
            shared = self.instance.replayed = range(first, last + 1)
        self.replayed = shared

    def receives(self, entry: Entry) -> bool:
        """Whether it was subscribed when the message was accepted, so that it gets the message without replay."""
        subscriptions = self.subscriptions
        return any(
            subscriptions.get(name, entry.sequence) < entry.sequence for name in entry.message.channels
        )


def subscription_bytes(names: Collection[str]) -> int:
    """Return the memory that subscriptions to these channels take at most."""
    text = "".join(names)
    if not text.isascii():
        return sum(
            SUBSCRIPTION_BYTES + len(name) * (1 if name.isascii() else NON_ASCII_BYTES) for name in names
        )
    return SUBSCRIPTION_BYTES * len(names) + len(text)


class SubscriptionBudget(Budget):
    """The memory of the subscriptions of all connections: `limits.subscriptions.total`."""

    def __init__(self, limit: int) -> None:
        super().__init__("limits.subscriptions.total", limit)
        self.count = 0  # subscriptions

    def on_subscribed(self, subscriber: Subscriber, names: Collection[str]) -> None:
        """Count new subscriptions; close the connections that hold most where they exceed the budget.

        Raises SubscriptionsFull where the subscriber's own connection is one of them.
        """
        size = subscription_bytes(names)
        self.count += len(names)
        self.used += size
        if len(subscriber.subscriptions) > UNATTRIBUTED_SUBSCRIPTIONS:
            self._attribute(subscriber, size)
        if self.is_full and self.make_room(subscriber.receiver.holder) is not None:
            raise SubscriptionsFull("this server has no room for more subscriptions now")

    def on_unsubscribed(self, subscriber: Subscriber, names: Collection[str]) -> None:
        """Count subscriptions that have ended."""
        size = subscription_bytes(names)
        self.count -= len(names)
        self.used -= size
        if len(subscriber.subscriptions) + len(names) > UNATTRIBUTED_SUBSCRIPTIONS:
            self._attribute(subscriber, -size)

    def _attribute(self, subscriber: Subscriber, size: int) -> None:
        subscriptions, holder = subscriber.subscriptions, subscriber.receiver.holder
        before = self.held(holder)
        if not before:
            after = subscription_bytes(subscriptions)
        else:
            after = before + size if len(subscriptions) > UNATTRIBUTED_SUBSCRIPTIONS else 0
        self.attribute(holder, after - before)
