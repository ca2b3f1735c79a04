"""The hub: accepts messages and commands, and decides which subscriber receives what. No sockets, loop or clock."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from aphlict.config.settings import ENTRIES_PER_COMMAND, Limits
from aphlict.core.fanout import FanOut
from aphlict.core.history import MAX_AGE, Entry, Evicted, HistoryStore, RepeatedMessages
from aphlict.core.message import Delivery, Message, check_name
from aphlict.core.resume import EarlyClients, Resumption, merge, replay
from aphlict.core.resume_token import encode_token
from aphlict.core.sequencer import Sequencer
from aphlict.core.stats import LIMIT_NAMES, REFUSALS, Counters, LimitCounters, SubscriberStats
from aphlict.core.subscriptions import Instance, Receiver, Subscriber, SubscriptionBudget
from aphlict.core.version_vector import MAX_ORIGINS, VersionVector
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
    starts. `origin` is the name under which the hub numbers messages; without one, all messages must be numbered.
    `on_accepted` is called with every message that a publisher or another node sent, when it is accepted.
    """

    def __init__(
        self,
        fingerprint: str,
        forwarder: Forwarder,
        limits: Limits,
        wake: Callable[[], None],
        started: float = 0.0,
        origin: str | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self.limits = limits
        self.counters = Counters()
        self.limit_counters = LimitCounters()
        self.instances: dict[str, Instance] = {}
        self.history = HistoryStore(limits.history)
        self.repeated = RepeatedMessages()
        self.connections = 0  # subscribers now
        self.subscription_memory = SubscriptionBudget(limits.subscriptions_total)
        self.epoch = 0.0
        self.gaps = 0  # how often all clients were disconnected as they have missed messages
        self.in_sync_until = inf  # messages are known to have come here as they were published until then
        self.origins = VersionVector(origin, started)
        self.sequencer = Sequencer(self.origins, self.history, self._take)
        self.early = EarlyClients()
        self.evicted: dict[str, Evicted] = {}  # from the instances that were removed, by origin
        self.on_accepted: Callable[[Message, float], None] | None = None
        self._forwarder = forwarder
        self._token_offset, self._token = Offset(-1, 0.0), ""  # the last resume token that was made
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
        """Accept a message: keep it, deliver it, and forward it to the other nodes; or report a duplicate.

        A message that another node has numbered may have to wait for those before it.
        """
        if self.fingerprint in message.touched and not message.origin:
            return MessageReceipt(message.unique_id, duplicate=True)
        self.counters.messages_in += 1
        self.history.expire(now)
        if message.origin:
            matched = self.sequencer.receive(message, now)
        elif message.unique_id in self.instance(message.instance).history:
            matched = None
        else:
            own = self.origins.own
            assert own is not None, "an edge receives numbered messages only"
            message.origin, message.number = own.name, own.number + 1
            matched = self._take(message, now)
        if matched is None:
            self.counters.duplicates += 1
            if not message.origin and not message.touched:  # from a publisher
                self.repeated.add(message.instance, message.unique_id, now)
            return MessageReceipt(message.unique_id, duplicate=True)
        return MessageReceipt(message.unique_id, matched)

    def _take(self, message: Message, now: float) -> int | None:
        """Accept a message whose turn it is; return the number of receivers, None for a known one: it was published
        to two nodes, and has two numbers."""
        matched = self._keep(message, now)
        if matched is not None:
            self._forwarder.forward(message)
            message.touched = ()  # the history keeps the message, and needs no list of nodes
        if self.on_accepted is not None:
            self.on_accepted(message, now)
        return matched

    def _keep(self, message: Message, at: float) -> int | None:
        instance = self.instance(message.instance)
        history, name, number = instance.history, message.origin, message.number
        origin = self.origins.get(name)
        assert origin is not None
        if (known := history.get(message.unique_id)) is not None:
            known.copies = (*known.copies, (name, number))
            origin.record(number, self.history.sequence)
            return None
        self.history.append(history, message, at)
        origin.record(number, self.history.sequence)
        early = self.early.that_have(message) if self.early else ()
        matched = self.fan_out.deliver(instance, message, early, at)
        self.counters.messages_out += matched
        self.counters.bytes_out += matched * len(message.payload)
        return matched

    def restore(self, message: Message, at: float, now: float) -> bool:
        """Keep and deliver a message that another process of this node accepted; False if it is known or too old.

        It is not forwarded: what other nodes lack is found out by comparing version vectors.
        """
        origin = self.origins.get(message.origin) or self.origins.register(
            message.origin, message.number - 1, at
        )
        if message.number <= origin.number:
            return False
        if at <= now - MAX_AGE:
            evicted = Evicted(message.number, at, message.unique_id)
            self.instance(message.instance).history.mark_evicted(message.origin, evicted)
            return False
        self._keep(message, at)
        return True

    # Subscribers

    def instance(self, name: str) -> Instance:
        """Return the instance of this name, a new one if necessary. `sweep` removes unused ones."""
        instance = self.instances.get(name)
        if instance is None:
            instance = self.instances[name] = Instance(name, self.evicted)
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
        if self.early:
            self.early.remove(subscriber.receiver)
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
        last = self.history.sequence
        subscriber.on_replayed(entries[0].sequence if entries else last + 1, last)
        self.counters.replays["age"] += 1
        return len(later) // ENTRIES_PER_COMMAND

    def resume(self, subscriber: Subscriber, after: Sequence[str], now: float) -> Resumption:
        """Find out where a client resumes that has the messages or resume tokens `after`."""
        self.history.expire(now)
        resumption = Resumption(
            subscriber.instance.history, subscriber.subscriptions, after, self.origins, self.epoch
        )
        if not self.origins.is_alone:
            early = resumption.early(subscriber.instance.history)
            self.early.add(subscriber.receiver, self._ahead(resumption.version), early, now)
        return resumption

    def _ahead(self, version: Mapping[str, int]) -> dict[str, int]:
        """Return the part of a version that is beyond what this node has."""
        mine = self.origins.version()
        return {name: number for name, number in version.items() if number > mine.get(name, 0)}

    def replay_after(
        self, subscriber: Subscriber, after: Sequence[str], now: float, done: Callable[[Recovery], None]
    ) -> int:
        """Deliver the messages after the messages or resume tokens `after`, without those delivered anyway."""
        return self.replay(subscriber, self.resume(subscriber, after, now), done)

    def replay(self, subscriber: Subscriber, resumption: Resumption, done: Callable[[Recovery], None]) -> int:
        """Deliver the messages that are missing according to a resumption."""
        missing = resumption.missing(subscriber.instance.history, subscriber.subscriptions)
        entries = [entry for entry in missing if not subscriber.receives(entry)]

        def on_done(recovery: Recovery) -> None:
            self.counters.replays["recovered" if recovery.recovered else "gap"] += 1
            done(recovery)

        self._replay(subscriber, entries, Recovery(len(entries), resumption.recovered), on_done)
        subscriber.on_replayed(0, self.history.sequence)
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
            self.counters.bytes_out += sum(len(entry.message.payload) for entry in kept)
        done(Recovery(len(kept), recovered and len(kept) == len(entries)))
        yield 1 + len(kept) // MESSAGES_PER_STEP

    # Resume tokens

    def resume_token(self, subscriber: Subscriber, now: float) -> str | None:
        """Return the resume token of a subscriber now; None while deliveries of its instance are queued."""
        if subscriber.instance.queue:
            return None
        return self.resume_token_at(subscriber, self.offset(now))

    def resume_token_at(
        self, subscriber: Subscriber, until: Offset, had: Mapping[str, int] | None = None
    ) -> str:
        """Return the resume token of a subscriber that has received everything accepted until an offset.

        `had`: the version that it had when it resumed, if its replay is not complete.
        """
        early = self.early
        if not had and subscriber.receiver not in early:
            return self.shared_token(until)
        version = self.origins.version_at(until.sequence, until.at)
        merge(version, early.version_of(subscriber.receiver))
        merge(version, had or {})
        return encode_token(self.epoch + until.at, version, early.digests_of(subscriber.receiver))

    def shared_token(self, until: Offset) -> str:
        """Return the resume token of all subscribers that had no message before this node."""
        if self._token_offset != until:
            version = self.origins.version_at(until.sequence, until.at)
            self._token_offset, self._token = until, encode_token(self.epoch + until.at, version)
        return self._token

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
            for origin, evicted in self.instances.pop(name).history.evicted.items():
                if origin not in self.evicted or self.evicted[origin].number < evicted.number:
                    self.evicted[origin] = evicted
        self.origins.trim(self.history.first_sequence)
        for known in (self.evicted, *(each.history.evicted for each in self.instances.values())):
            if len(known) > MAX_ORIGINS:  # of the others, no token is valid any more
                for origin in [name for name in known if self.origins.get(name) is None]:
                    del known[origin]
        self.repeated.sweep(now)
        if self.early:
            self.early.sweep(self.origins, now)

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
