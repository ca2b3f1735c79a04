"""The heart: takes messages and commands, decides who gets what. It knows no socket, no loop and no clock."""

from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from aphlict.config.settings import ENTRIES_PER_COMMAND, Limits
from aphlict.core import resume_token as position
from aphlict.core.budget import Budget
from aphlict.core.fanout import FanOut
from aphlict.core.history import MAX_AGE, Entry, Eviction, Evictions, HistoryStore
from aphlict.core.message import Delivery, Message, check_name, random_name
from aphlict.core.resume import Resumption, replay
from aphlict.core.resume_token import RECENT, REMEMBERED, ResumeToken
from aphlict.core.stats import LIMIT_NAMES, REFUSALS, Counters, LimitCounters, Subscribed
from aphlict.core.subscriptions import ORIGIN_SIZE, Instance, Receiver, Subscriber, subscription_cost
from aphlict.errors import NameTooLong, Overloaded, SubscriptionsFull, TooManySubscriptions

FEW = 32  # subscriptions that no connection is closed for, however many others there are
API_VERSION = 7  # of the Node.js server's status page


class Forwarder(Protocol):
    """What carries messages to the other nodes. It never waits, and never raises."""

    def forward(self, message: Message, /) -> None:
        """Send a message on to every other node that has not got it. `touched` is dropped afterwards."""


class Receipt(Struct, frozen=True, omit_defaults=True):
    """What the publisher of one message is told."""

    unique_id: str
    matched: int = 0
    duplicate: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The receipt as the wire has it."""
        receipt: dict[str, Any] = {"uniqueID": self.unique_id, "matched": self.matched}
        if self.duplicate:
            receipt["duplicate"] = True
        return receipt


class Recovery(NamedTuple):
    """What a replay came to: how many messages, and whether none can be missing."""

    messages: int
    recovered: bool


class Offset(NamedTuple):
    """A time in the life of a hub: the sequence of the last message accepted by then, and the seconds."""

    sequence: int
    at: float


class Hub:
    """All instances of a node.

    `wake` is called when there is work for `work()`, which must then be called until it returns False.
    Every `now` is a monotonic time in seconds, and so is `started`; `epoch` is the Unix time at which they begin.
    Of what was published before `started` nothing is known; inf: nothing at all, until `adopt`.
    """

    def __init__(
        self,
        fingerprint: str,
        transport: Forwarder,
        limits: Limits,
        wake: Callable[[], None],
        started: float = 0.0,
    ) -> None:
        self.fingerprint = fingerprint
        self.limits = limits
        self.counters = Counters()
        self.hits = LimitCounters()
        self.instances: dict[str, Instance] = {}
        self.archive = HistoryStore(limits.history)
        self.connections = 0  # the browsers that are connected now
        self.memory = Budget("limits.subscriptions.total", limits.subscriptions_total)
        self.epoch = 0.0
        self.in_sync_until = inf  # when messages were last known to come here as they were published
        self._origin = random_name(ORIGIN_SIZE)
        self._begin = started
        self._lost, self._lost_at = 0, 0.0  # of the instances that were forgotten
        self._transport = transport
        self.deliveries = FanOut(wake)
        self.work = self.deliveries.work

    def reload(self, limits: Limits) -> None:
        """Use other limits from now on."""
        self.limits = limits
        self.archive.max_cost = limits.history
        self.memory.limit = limits.subscriptions_total

    # Publishing

    @property
    def waiting(self) -> int:
        """Deliveries that wait for their turn."""
        return self.deliveries.waiting

    @property
    def load(self) -> float:
        """How much of what may wait to be delivered does: beyond 1 more would come too late, or fill the memory."""
        limits, deliveries = self.limits, self.deliveries
        return max(deliveries.waiting / limits.delivery_queue, deliveries.cost / limits.history)

    @property
    def reach(self) -> float:
        """The load that one more message adds at most: if it is for all browsers."""
        return self.connections / self.limits.delivery_queue

    def check_load(self, elsewhere: float = 0.0) -> None:
        """Raise Overloaded where nothing more may wait. `elsewhere`: the load of other processes of this node."""
        if self.load > 1 or elsewhere > 1:
            raise Overloaded("too much is waiting to be delivered: this server cannot keep up")

    def publish(self, message: Message, now: float) -> Receipt:
        """Take a message: keep it, hand it to who listens here, and pass it on to the other nodes."""
        if self.fingerprint in message.touched:
            return Receipt(message.unique_id, duplicate=True)
        self.counters.messages_in += 1
        instance = self.instance(message.instance)
        self.archive.expire(now)
        if message.unique_id in instance.history:
            self.counters.duplicates += 1
            return Receipt(message.unique_id, duplicate=True)
        self.archive.append(instance.history, message, now)
        matched = self.deliveries.deliver(instance, message)
        self.counters.messages_out += matched
        self._transport.forward(message)
        message.touched = ()  # the history keeps the message
        return Receipt(message.unique_id, matched)

    def restore(self, message: Message, at: float, now: float) -> bool:
        """Keep a message that was published before this hub was there; False where it is known, or was dropped.

        It is passed on: nobody knows whether the hub before got to that. One so old that other nodes may have
        forgotten it is not, since they would take it for a new one.
        """
        history = self.instance(message.instance).history
        if message.unique_id in history or at <= max(history.lost_at, now - MAX_AGE):
            return False
        self.archive.append(history, message, at)
        if at > now - MAX_AGE / 2:
            self._transport.forward(message)
        return True

    def evictions(self) -> Evictions:
        """What is missing from the histories."""
        found = {
            name: Eviction(instance.history.before, instance.history.lost_at)
            for name, instance in self.instances.items()
            if instance.history.last_sequence or instance.history.lost_at > self._lost_at
        }
        return Evictions(self._begin, self._lost_at, found)

    def adopt(self, evictions: Evictions, complete_until: float) -> None:
        """Take over what is missing from the histories of another process, once all that they keep is here as well.

        What was dropped there and published after `complete_until` never came here: readers cannot go on from a
        place before that, nor from one that was named here until now.
        """
        self._begin = min(self._begin, evictions.begin)
        if evictions.latest > complete_until:
            self.archive.sequence += 1
        sequence = self.archive.sequence
        for name in self.instances.keys() | evictions.instances.keys():
            before, at = evictions.instances.get(name, ("", evictions.at))
            if at > complete_until:
                history = self.instance(name).history
                self.archive.drop_before(history, at)
                history.lose(before or random_name(ORIGIN_SIZE), at, sequence)
        if evictions.at > complete_until:
            self._lost, self._lost_at = sequence, max(self._lost_at, evictions.at)

    # Subscribers

    def instance(self, name: str) -> Instance:
        """The instance of that name; it is made if need be. `sweep` forgets those that nobody uses."""
        instance = self.instances.get(name)
        if instance is None:
            instance = self.instances[name] = Instance(name, self._lost, self._lost_at)
        return instance

    def join(self, instance_name: str, receiver: Receiver) -> Subscriber:
        """Let a browser in. It must `leave` in the end. Raises NameTooLong."""
        instance = self.instance(check_name(instance_name, "the instance", self.limits.name))
        instance.subscribers += 1
        self.connections += 1
        self.counters.clients_total += 1
        return Subscriber(instance, receiver)

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a browser; nothing is sent to it any more."""
        subscriber.instance.subscribers -= 1
        self.connections -= 1
        self.unsubscribe(subscriber, tuple(subscriber.subscriptions))

    def subscribe(self, subscriber: Subscriber, channels: Sequence[str]) -> None:
        """Add channels; all of them, or none where it raises CommandError or NameTooLong.

        `channels` of the error are those without which the rest would be added. Raises SubscriptionsFull where the
        subscriber has to leave, since the subscriptions of all take too much memory.
        """
        held = subscriber.subscriptions
        new = [name for name in channels if name not in held]
        room = max(self.limits.subscriptions - len(held), 0)
        if len(new) > room:
            error = TooManySubscriptions(f"a connection may have {self.limits.subscriptions} subscriptions")
            error.channels = tuple(new[room:])
            raise error
        self._check_names(new)
        sequence = self.archive.sequence
        for name in new:
            held[name] = sequence
            subscriber.instance.channels.add(name, subscriber.receiver)
        self.memory.used += (size := subscription_cost(new))
        if len(held) > FEW:
            self._attribute(subscriber, size)
        if self.memory.used > self.memory.limit:
            self._make_room(subscriber)

    def _attribute(self, subscriber: Subscriber, size: int) -> None:
        """Attribute the bytes of subscriptions that were added or taken away, where a connection has, or had, more
        than FEW: an account takes more memory than few of them do."""
        held, holder = subscriber.subscriptions, subscriber.receiver.holder
        before = self.memory.held(holder)
        after = subscription_cost(held) if not before else before + size if len(held) > FEW else 0
        self.memory.attribute(holder, after - before)

    def _make_room(self, subscriber: Subscriber) -> None:
        if self.memory.make_room(subscriber.receiver.holder) is not None:
            raise SubscriptionsFull("this server has no room for more subscriptions now")

    def _check_names(self, names: Sequence[str]) -> None:
        limit = self.limits.name
        try:
            for name in names:
                check_name(name, "a channel", limit)
        except NameTooLong as error:
            error.channels = tuple(name for name in names if len(name.encode()) > limit)
            raise

    def unsubscribe(self, subscriber: Subscriber, channels: Sequence[str]) -> None:
        """Take channels away; those that it does not have are no error."""
        held = subscriber.subscriptions
        gone = [name for name in channels if held.pop(name, None) is not None]
        for name in gone:
            subscriber.instance.channels.discard(name, subscriber.receiver)
        self.memory.used -= (size := subscription_cost(gone))
        if len(held) + len(gone) > FEW:
            self._attribute(subscriber, -size)

    # Replay

    def replay_age(
        self, subscriber: Subscriber, age: float, now: float, done: Callable[[Recovery], None]
    ) -> int:
        """Send again what is `age` seconds old or younger, whether or not it was sent before.

        As with the other replays, `done` is called once the messages have been handed over; returned is what it
        costs the server, in commands.
        """
        self.archive.expire(now)
        oldest = now - age
        later = subscriber.instance.history.select(
            subscriber.subscriptions, lambda entry: entry.latest >= oldest
        )
        entries = [entry for entry in later if entry.at >= oldest]
        self._replay(subscriber, entries, Recovery(len(entries), recovered=True), done)
        return len(later) // ENTRIES_PER_COMMAND

    def resume(self, subscriber: Subscriber, after: Sequence[str], now: float) -> Resumption:
        """Find where a reader goes on that had the messages `after`, or was told these positions."""
        self.archive.expire(now)
        history = subscriber.instance.history
        return Resumption(history, subscriber.subscriptions, after, self._origin, self.epoch, self._begin)

    def replay_after(
        self, subscriber: Subscriber, after: Sequence[str], now: float, done: Callable[[Recovery], None]
    ) -> int:
        """Send what came later than the messages or positions `after`, save what this browser has or gets anyway."""
        return self.replay(subscriber, self.resume(subscriber, after, now), done)

    def replay(self, subscriber: Subscriber, resumption: Resumption, done: Callable[[Recovery], None]) -> int:
        """Send what a resumption says is missing."""
        missing = resumption.missing(subscriber.instance.history, subscriber.subscriptions)
        entries = [entry for entry in missing if not _is_live(subscriber, entry)]
        self._replay(subscriber, entries, Recovery(len(entries), resumption.recovered), done)
        return resumption.looked_at // ENTRIES_PER_COMMAND

    def position(self, subscriber: Subscriber, until: Offset, early: tuple[bytes, ...] = ()) -> str:
        """Name the place at which a subscriber stands that has had everything accepted until a moment.

        `early`: what it has had beside, as its resumption says.
        """
        at = self.epoch + until.at
        return ResumeToken(self._origin, until.sequence, at, self.recent(subscriber, until), early).text()

    def position_head(self, until: Offset) -> str:
        """Make the begin of a position, which is the same for all subscribers; the rest is what they had."""
        return position.head(self._origin, until.sequence, self.epoch + until.at)

    def recent(self, subscriber: Subscriber, until: Offset) -> tuple[bytes, ...]:
        """The digests of the last messages that a subscriber had at a moment, newest first."""
        had = subscriber.instance.history.newest(subscriber.subscriptions, until.sequence, REMEMBERED)
        return tuple(entry.digest for entry in had if entry.at > until.at - RECENT)

    def moment(self, now: float) -> Offset:
        """What has been accepted by now."""
        return Offset(self.archive.sequence, min(now, self.in_sync_until))

    def offset_of(self, delivery: Delivery) -> Offset:
        """The offset at which the message was accepted; before all others where the history has evicted it."""
        entry = self.instance(delivery.instance).history.entry(delivery.unique_id)
        return Offset(entry.sequence, entry.at) if entry else Offset(0, -self.epoch)

    def last(self, subscriber: Subscriber, now: float) -> str | None:
        """Name the place where this browser may resume. None while messages are on their way."""
        return None if subscriber.instance.queue else self.position(subscriber, self.moment(now))

    def _replay(
        self, subscriber: Subscriber, entries: list[Entry], result: Recovery, done: Callable[[Recovery], None]
    ) -> None:
        """Hand the messages over when everything that was accepted before has been."""
        job = self._hand_over(subscriber, entries, result.recovered, done)
        if subscriber.instance.queue:
            self.deliveries.enqueue(subscriber.instance, job)
        else:
            next(job, None)
            next(job, None)

    def _hand_over(
        self, subscriber: Subscriber, entries: list[Entry], recovered: bool, done: Callable[[Recovery], None]
    ) -> Iterator[int]:
        """What has been forgotten before its turn came is missing."""
        kept = [entry for entry in entries if entry.history is not None]
        if kept:
            subscriber.receiver.deliver_all(replay(subscriber, kept))
            self.counters.messages_out += len(kept)
        done(Recovery(len(kept), recovered and len(kept) == len(entries)))
        yield 1 + len(kept) // 8

    # The state of things

    def sweep(self, now: float) -> None:
        """Forget what is too old, and instances that nobody uses. To be called every few seconds."""
        self.archive.expire(now)
        idle = [
            name
            for name, instance in self.instances.items()
            if not instance.subscribers and not instance.history and not instance.queue
        ]
        for name in idle:
            history = self.instances.pop(name).history
            self._lost, self._lost_at = max(self._lost, history.lost), max(self._lost_at, history.lost_at)

    def subscribed(self, name: str) -> Subscribed:
        """How many browsers there are, here and now."""
        instance = self.instances.get(name)
        return Subscribed(
            instance.subscribers if instance else 0,
            self.connections,
            self.counters.clients_total,
            self.counters.messages_out,
            self.waiting,
            dict(self.hits.counts),
        )

    def status(self, name: str, now: float, subscribed: Subscribed | None = None) -> dict[str, Any]:
        """What the status page says of an instance, as the Node.js server names it.

        `subscribed` counts the browsers where they are not this hub's own.
        """
        self.archive.expire(now)
        subscribed = subscribed or self.subscribed(name)
        instance = self.instances.get(name) or Instance(name)
        age = instance.history.age(now)
        counts = {**subscribed.limits, "limits.history": self.archive.overflowed}
        return {
            "instance": name,
            "clients.active": subscribed.active,
            "clients.total": subscribed.total,
            "messages.in": self.counters.messages_in,
            "messages.out": subscribed.messages_out,
            "history.size": len(instance.history),
            "history.age": None if age is None else round(age * 1000),
            "version": API_VERSION,
            "fingerprint": self.fingerprint,
            "connections": subscribed.connections,
            "duplicates": self.counters.duplicates,
            "deliveries.waiting": subscribed.waiting,
            "limits": {name: counts.get(name, 0) for name in LIMIT_NAMES},
            "refused": {name: counts.get(name, 0) for name in REFUSALS},
        }


def _is_live(subscriber: Subscriber, entry: Entry) -> bool:
    """Whether the browser listened when the message came, and so got it, or gets it, without a replay."""
    held = subscriber.subscriptions
    return any(held.get(name, entry.sequence) < entry.sequence for name in entry.message.channels)
