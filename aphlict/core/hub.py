"""The hub: accepts messages and commands, and decides which subscriber receives what. No sockets, loop or clock."""

from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from aphlict.config.settings import ENTRIES_PER_COMMAND, Limits
from aphlict.core.fanout import FanOut
from aphlict.core.history import MAX_AGE, Entry, Eviction, Evictions, HistoryStore
from aphlict.core.message import Delivery, Message, check_name, random_name
from aphlict.core.resume import MAX_RECENT, RECENT_SECONDS, ResumeToken, Resumption, replay, token_prefix
from aphlict.core.stats import LIMIT_NAMES, REFUSALS, Counters, LimitCounters, SubscriberStats
from aphlict.core.subscriptions import ORIGIN_LENGTH, Instance, Receiver, Subscriber, SubscriptionBudget
from aphlict.errors import NameTooLong, Overloaded, TooManySubscriptions

API_VERSION = 7  # of the status page of the Node.js server
MESSAGES_PER_STEP = 8  # of a replay that are handed over in the time of one delivery


class Forwarder(Protocol):
    """Carries messages to the other nodes. It neither waits nor raises."""

    def forward(self, message: Message, /) -> None:
        """Send a message to every node that is not in its `touched`, which is cleared afterwards."""


class MessageReceipt(Struct, frozen=True, omit_defaults=True):
    """The result of publishing one message."""

    unique_id: str
    matched: int = 0
    duplicate: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the receipt as publishers receive it."""
        receipt: dict[str, Any] = {"uniqueID": self.unique_id, "matched": self.matched}
        if self.duplicate:
            receipt["duplicate"] = True
        return receipt


class Recovery(NamedTuple):
    """The result of a replay: the number of messages, and whether none beyond them can be missing."""

    messages: int
    recovered: bool


class Offset(NamedTuple):
    """A point in the life of a hub: the sequence of the last message accepted by then, and the time in seconds."""

    sequence: int
    at: float


class Hub:
    """All instances of a node.

    `wake` is called when work is queued: then `run_slice` must be called until it returns False.
    Every `now` is a monotonic time in seconds, and so is `started`; `epoch` is the Unix time at which that clock
    starts. Nothing is known about messages published before `started`; with inf, about none, until
    `adopt_evictions`.
    """

    def __init__(
        self,
        fingerprint: str,
        forwarder: Forwarder,
        limits: Limits,
        wake: Callable[[], None],
        started: float = 0.0,
    ) -> None:
        self.fingerprint = fingerprint
        self.limits = limits
        self.counters = Counters()
        self.limit_counters = LimitCounters()
        self.instances: dict[str, Instance] = {}
        self.history = HistoryStore(limits.history)
        self.connections = 0  # subscribers now
        self.subscription_memory = SubscriptionBudget(limits.subscriptions_total)
        self.epoch = 0.0
        self.in_sync_until = inf  # messages are known to have come here as they were published until then
        self._origin = random_name(ORIGIN_LENGTH)
        self._known_since = started
        self._evicted_sequence, self._evicted_at = 0, 0.0  # of the instances that were removed
        self._forwarder = forwarder
        self.fan_out = FanOut(wake)
        self.run_slice = self.fan_out.run_slice

    def reload(self, limits: Limits) -> None:
        """Apply other limits from now on."""
        self.limits = limits
        self.history.max_memory = limits.history
        self.subscription_memory.limit = limits.subscriptions_total

    # Publishing

    @property
    def load(self) -> float:
        """The fraction of what may be queued that is: beyond 1, messages would be late or exhaust the memory."""
        limits, fan_out = self.limits, self.fan_out
        return max(fan_out.queued / limits.delivery_queue, fan_out.queued_bytes / limits.history)

    @property
    def reach(self) -> float:
        """The load that one more message adds at most: if it is for all subscribers."""
        return self.connections / self.limits.delivery_queue

    def check_load(self, elsewhere: float = 0.0) -> None:
        """Raise Overloaded where nothing more may be queued. `elsewhere`: the load of other processes of the node."""
        if self.load > 1 or elsewhere > 1:
            raise Overloaded("too many deliveries are queued: this server cannot keep up")

    def publish(self, message: Message, now: float) -> MessageReceipt:
        """Accept a message: keep it, deliver it, and forward it to the other nodes; or report a duplicate."""
        if self.fingerprint in message.touched:
            return MessageReceipt(message.unique_id, duplicate=True)
        self.counters.messages_in += 1
        instance = self.instance(message.instance)
        self.history.expire(now)
        if message.unique_id in instance.history:
            self.counters.duplicates += 1
            return MessageReceipt(message.unique_id, duplicate=True)
        self.history.append(instance.history, message, now)
        matched = self.fan_out.deliver(instance, message)
        self.counters.messages_out += matched
        self._forwarder.forward(message)
        message.touched = ()  # the history keeps the message, and needs no list of nodes
        return MessageReceipt(message.unique_id, matched)

    # State of other processes

    def restore(self, message: Message, at: float, now: float) -> bool:
        """Keep a message that another process of this node accepted; False where it is known or was evicted.

        It is not delivered: subscribers that miss it resume. It is forwarded, as the process that accepted it may
        have ended before it could. Peers recognize a duplicate as long as they keep the message, which they may have
        accepted earlier or evict sooner than this node: a message of more than half the maximum age is not
        forwarded, since a peer that has evicted it would deliver it again.
        """
        history = self.instance(message.instance).history
        if message.unique_id in history or at <= max(history.evicted_at, now - MAX_AGE):
            return False
        self.history.append(history, message, at)
        if at > now - MAX_AGE / 2:
            self._forwarder.forward(message)
        return True

    def evictions(self) -> Evictions:
        """Return what the histories lack, for `adopt_evictions` of another process."""
        found = {
            name: Eviction(instance.history.before, instance.history.evicted_at)
            for name, instance in self.instances.items()
            if instance.history.last_sequence or instance.history.evicted_at > self._evicted_at
        }
        return Evictions(self._known_since, self._evicted_at, found)

    def adopt_evictions(self, evictions: Evictions, complete_until: float) -> None:
        """Take over what the histories of another process lack, after all that they keep was restored here.

        A message that was published after `complete_until` and evicted there before it was sent here never came here.
        No client may resume across it: not from a token whose time is before the eviction, and not from any that
        this hub has issued until now, since their sequences do not count the message. A sequence that is used for no
        message separates the tokens before from those after.
        """
        self._known_since = min(self._known_since, evictions.begin)
        if evictions.latest > complete_until:
            self.history.sequence += 1
        sequence = self.history.sequence
        for name in self.instances.keys() | evictions.instances.keys():
            before, at = evictions.instances.get(name, ("", evictions.at))
            if at > complete_until:
                history = self.instance(name).history
                # What was kept from before the eviction cannot be replayed without a gap.
                self.history.evict_before(history, at)
                history.mark_evicted(before or random_name(ORIGIN_LENGTH), at, sequence)
        if evictions.at > complete_until:
            self._evicted_sequence, self._evicted_at = sequence, max(self._evicted_at, evictions.at)

    # Subscribers

    def instance(self, name: str) -> Instance:
        """Return the instance of this name, a new one if necessary. `sweep` removes unused ones."""
        instance = self.instances.get(name)
        if instance is None:
            instance = self.instances[name] = Instance(name, self._evicted_sequence, self._evicted_at)
        return instance

    def join(self, instance_name: str, receiver: Receiver) -> Subscriber:
        """Add a subscriber. The caller must call `leave` in the end. Raises NameTooLong."""
        instance = self.instance(check_name(instance_name, "the instance", self.limits.name))
        instance.subscribers += 1
        self.connections += 1
        self.counters.clients_total += 1
        return Subscriber(instance, receiver)

    def leave(self, subscriber: Subscriber) -> None:
        """Remove a subscriber; its receiver gets nothing any more."""
        subscriber.instance.subscribers -= 1
        self.connections -= 1
        self.unsubscribe(subscriber, tuple(subscriber.subscriptions))

    def subscribe(self, subscriber: Subscriber, channels: Sequence[str]) -> None:
        """Add all of these channels, or none where it raises TooManySubscriptions or NameTooLong.

        `channels` of the error are those without which the rest would be added. Raises SubscriptionsFull where the
        caller has to close the connection, since the subscriptions of all connections take too much memory.
        """
        subscriptions = subscriber.subscriptions
        new = [name for name in channels if name not in subscriptions]
        room = max(self.limits.subscriptions - len(subscriptions), 0)
        if len(new) > room:
            error = TooManySubscriptions(
                f"a connection may have at most {self.limits.subscriptions} subscriptions"
            )
            error.channels = tuple(new[room:])
            raise error
        self._check_names(new)
        sequence = self.history.sequence
        for name in new:
            subscriptions[name] = sequence
            subscriber.instance.index.add(name, subscriber.receiver)
        self.subscription_memory.on_subscribed(subscriber, new)

    def _check_names(self, names: Sequence[str]) -> None:
        limit = self.limits.name
        try:
            for name in names:
                check_name(name, "a channel", limit)
        except NameTooLong as error:
            error.channels = tuple(name for name in names if len(name.encode()) > limit)
            raise

    def unsubscribe(self, subscriber: Subscriber, channels: Sequence[str]) -> None:
        """Remove those of these channels that are subscribed."""
        subscriptions = subscriber.subscriptions
        removed = [name for name in channels if subscriptions.pop(name, None) is not None]
        for name in removed:
            subscriber.instance.index.discard(name, subscriber.receiver)
        self.subscription_memory.on_unsubscribed(subscriber, removed)

    # Replay

    def replay_age(
        self, subscriber: Subscriber, age: float, now: float, done: Callable[[Recovery], None]
    ) -> int:
        """Deliver the messages of the last `age` seconds, again if they were delivered before.

        As with the other replays, `done` is called after the messages have been handed to the receiver; the result is
        the cost, in commands.
        """
        self.history.expire(now)
        oldest = now - age
        # Restored entries are out of order in time: `latest` is monotonic, as `select` requires.
        later = subscriber.instance.history.select(
            subscriber.subscriptions, lambda entry: entry.latest >= oldest
        )
        entries = [entry for entry in later if entry.at >= oldest]
        self._replay(subscriber, entries, Recovery(len(entries), recovered=True), done)
        return len(later) // ENTRIES_PER_COMMAND

    def resume(self, subscriber: Subscriber, after: Sequence[str], now: float) -> Resumption:
        """Find out where a client resumes that has the messages or resume tokens `after`."""
        self.history.expire(now)
        history = subscriber.instance.history
        return Resumption(
            history, subscriber.subscriptions, after, self._origin, self.epoch, self._known_since
        )

    def replay_after(
        self, subscriber: Subscriber, after: Sequence[str], now: float, done: Callable[[Recovery], None]
    ) -> int:
        """Deliver the messages after the messages or resume tokens `after`, without those delivered anyway."""
        return self.replay(subscriber, self.resume(subscriber, after, now), done)

    def replay(self, subscriber: Subscriber, resumption: Resumption, done: Callable[[Recovery], None]) -> int:
        """Deliver the messages that are missing according to a resumption."""
        missing = resumption.missing(subscriber.instance.history, subscriber.subscriptions)
        entries = [entry for entry in missing if not subscriber.receives(entry)]
        self._replay(subscriber, entries, Recovery(len(entries), resumption.recovered), done)
        return resumption.examined // ENTRIES_PER_COMMAND

    def _replay(
        self, subscriber: Subscriber, entries: list[Entry], result: Recovery, done: Callable[[Recovery], None]
    ) -> None:
        """Hand the messages over, after the deliveries that were queued before."""
        job = self._hand_over(subscriber, entries, result.recovered, done)
        if subscriber.instance.queue:
            self.fan_out.enqueue(subscriber.instance, job)
        else:
            next(job, None)
            next(job, None)

    def _hand_over(
        self, subscriber: Subscriber, entries: list[Entry], recovered: bool, done: Callable[[Recovery], None]
    ) -> Iterator[int]:
        # Entries may have been evicted while the job was queued.
        kept = [entry for entry in entries if entry.history is not None]
        if kept:
            subscriber.receiver.deliver_all(replay(subscriber, kept))
            self.counters.messages_out += len(kept)
        done(Recovery(len(kept), recovered and len(kept) == len(entries)))
        yield 1 + len(kept) // MESSAGES_PER_STEP

    # Resume tokens

    def resume_token(self, subscriber: Subscriber, now: float) -> str | None:
        """Return the resume token of a subscriber now; None while deliveries of its instance are queued."""
        if subscriber.instance.queue:
            return None
        return self.resume_token_at(subscriber, self.offset(now))

    def resume_token_at(self, subscriber: Subscriber, until: Offset, early: tuple[bytes, ...] = ()) -> str:
        """Return the resume token of a subscriber that has received everything accepted until an offset.

        `early`: the messages that it had before this node did, according to its resumption.
        """
        at = self.epoch + until.at
        return ResumeToken(self._origin, until.sequence, at, self.recent(subscriber, until), early).encode()

    def resume_token_prefix(self, until: Offset) -> str:
        """Return the part of a resume token that is the same for all subscribers."""
        return token_prefix(self._origin, until.sequence, self.epoch + until.at)

    def recent(self, subscriber: Subscriber, until: Offset) -> tuple[bytes, ...]:
        """Return the digests of the last messages that a subscriber received until an offset, newest first."""
        newest = subscriber.instance.history.newest(subscriber.subscriptions, until.sequence, MAX_RECENT)
        return tuple(entry.digest for entry in newest if entry.at > until.at - RECENT_SECONDS)

    def offset(self, now: float) -> Offset:
        """Return the offset of what has been accepted by now.

        Its time is no later than `in_sync_until`: an edge without its hub does not know what was published since,
        and another node must look for that from there.
        """
        return Offset(self.history.sequence, min(now, self.in_sync_until))

    def offset_of(self, delivery: Delivery) -> Offset:
        """Return the offset at which the message was accepted; before all others where it has been evicted."""
        entry = self.instance(delivery.instance).history.get(delivery.unique_id)
        return Offset(entry.sequence, entry.at) if entry else Offset(0, -self.epoch)

    # Housekeeping and status

    def sweep(self, now: float) -> None:
        """Evict expired messages and remove unused instances. To be called every few seconds."""
        self.history.expire(now)
        unused = [
            name
            for name, instance in self.instances.items()
            if not instance.subscribers and not instance.history and not instance.queue
        ]
        for name in unused:
            # Whether a client can resume in an instance that is made again depends on what this one evicted.
            history = self.instances.pop(name).history
            self._evicted_sequence = max(self._evicted_sequence, history.evicted_sequence)
            self._evicted_at = max(self._evicted_at, history.evicted_at)

    def subscriber_stats(self, name: str) -> SubscriberStats:
        """Return the counters of this process; `active` for the instance of this name."""
        instance = self.instances.get(name)
        return SubscriberStats(
            instance.subscribers if instance else 0,
            self.connections,
            self.counters.clients_total,
            self.counters.messages_out,
            self.fan_out.queued,
            dict(self.limit_counters.counts),
        )

    def status(self, name: str, now: float, subscribers: SubscriberStats | None = None) -> dict[str, Any]:
        """Return the members of the status page for an instance, under the names of the Node.js server.

        `subscribers`: the counters of other processes, where this one has no subscribers.
        """
        self.history.expire(now)
        subscribers = subscribers or self.subscriber_stats(name)
        instance = self.instances.get(name) or Instance(name)
        age = instance.history.age(now)
        counts = {**subscribers.limits, "limits.history": self.history.overflowed}
        return {
            "instance": name,
            "clients.active": subscribers.active,
            "clients.total": subscribers.total,
            "messages.in": self.counters.messages_in,
            "messages.out": subscribers.messages_out,
            "history.size": len(instance.history),
            "history.age": None if age is None else round(age * 1000),
            "version": API_VERSION,
            "fingerprint": self.fingerprint,
            "connections": subscribers.connections,
            "duplicates": self.counters.duplicates,
            "deliveries.waiting": subscribers.queued,
            "limits": {name: counts.get(name, 0) for name in LIMIT_NAMES},
            "refused": {name: counts.get(name, 0) for name in REFUSALS},
        }
