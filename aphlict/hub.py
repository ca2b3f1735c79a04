"""The heart: takes messages and commands, decides who gets what. It knows no socket, no loop and no clock."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from aphlict.channels import Channels, Receiver
from aphlict.config.settings import Limits
from aphlict.errors import CommandError
from aphlict.history import Archive, Entry, History
from aphlict.message import Frame, Message, check_name, random_name
from aphlict.position import RECENT, REMEMBERED, Position, digest
from aphlict.resumption import Resumption

SLICE = 256  # frames sent in a row before other work has its turn: about 2 ms
ORIGIN_SIZE = 16  # letters of the name that stands for the beginning of a history
API_VERSION = 7  # of the Node.js server's status page


class Transport(Protocol):
    """What carries messages to the other nodes. It never waits, and never raises."""

    def forward(self, message: Message, /) -> None:
        """Send a message on to every other node that has not got it."""


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


class Subscribed(Struct, frozen=True, array_like=True):
    """The figures that count browsers: of one instance, and of all since the start."""

    active: int = 0
    connections: int = 0
    total: int = 0
    messages_out: int = 0

    def __add__(self, other: "Subscribed") -> "Subscribed":
        return Subscribed(
            self.active + other.active,
            self.connections + other.connections,
            self.total + other.total,
            self.messages_out + other.messages_out,
        )


class Recovery(NamedTuple):
    """What a replay came to: how many messages, and whether none can be missing."""

    messages: int
    recovered: bool


class Moment(NamedTuple):
    """A time in the life of a hub: the sequence of the last message accepted by then, and the seconds."""

    sequence: int
    at: float


class Instance:
    """Everything of one instance. Messages of one never meet those of another."""

    __slots__ = ("channels", "history", "name", "queue", "subscribers")

    def __init__(self, name: str, lost: int = 0, lost_at: float = 0.0) -> None:
        self.name = name
        self.channels = Channels()
        self.history = History(random_name(ORIGIN_SIZE), lost, lost_at)
        self.subscribers = 0
        self.queue: deque[Iterator[int]] = deque()  # fan-outs and replays that are not done, in order


class Subscriber:
    """One browser in the eyes of the hub. `subscriptions`: channel to the sequence at which it was added."""

    __slots__ = ("instance", "receiver", "subscriptions")

    def __init__(self, instance: Instance, receiver: Receiver) -> None:
        self.instance = instance
        self.receiver = receiver
        self.subscriptions: dict[str, int] = {}


class Counters:
    """What the status page counts since the start."""

    __slots__ = ("clients_total", "duplicates", "messages_in", "messages_out")

    def __init__(self) -> None:
        self.clients_total = 0
        self.messages_in = 0
        self.messages_out = 0
        self.duplicates = 0


class Hub:
    """All instances of a node.

    `wake` is called when there is work for `work()`, which must then be called until it returns False.
    Every `now` is a monotonic time in seconds, and so is `started`; `epoch` is the Unix time at which they begin.
    """

    def __init__(
        self,
        fingerprint: str,
        transport: Transport,
        limits: Limits,
        wake: Callable[[], None],
        started: float = 0.0,
    ) -> None:
        self.fingerprint = fingerprint
        self.limits = limits
        self.counters = Counters()
        self.instances: dict[str, Instance] = {}
        self.archive = Archive(limits.limits_history)
        self.epoch = 0.0
        self._origin = random_name(ORIGIN_SIZE)
        self._lost, self._lost_at = 0, started  # of the instances that were forgotten
        self._transport = transport
        self._wake = wake
        self._busy: deque[Instance] = deque()  # instances whose queue is not empty, each once

    def reload(self, limits: Limits) -> None:
        """Use other limits from now on."""
        self.limits = limits
        self.archive.max_cost = limits.limits_history

    # Publishing

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
        matched = self._deliver(instance, message)
        self._transport.forward(message)
        return Receipt(message.unique_id, matched)

    def restore(self, message: Message, at: float) -> bool:
        """Keep a message that was published before this hub was there; False where it is known."""
        instance = self.instance(message.instance)
        if message.unique_id in instance.history:
            return False
        self.archive.append(instance.history, message, at)
        return True

    def _deliver(self, instance: Instance, message: Message) -> int:
        matched = 0
        for channels, receivers in instance.channels.match(message.channels):
            matched += len(receivers)
            frame = message.frame(channels)
            if len(receivers) <= SLICE and not instance.queue:
                for receiver in receivers:
                    receiver.send(frame)
            else:
                self._enqueue(instance, _fan_out(frame, receivers))
        self.counters.messages_out += matched
        return matched

    # Long work, in slices

    def _enqueue(self, instance: Instance, job: Iterator[int]) -> None:
        if not instance.queue:
            self._busy.append(instance)
            if len(self._busy) == 1:
                self._wake()
        instance.queue.append(job)

    def work(self) -> bool:
        """Do one slice of what is waiting, instances in turn; True while there is more."""
        budget = SLICE
        while self._busy and budget > 0:
            instance = self._busy.popleft()
            spent = next(instance.queue[0], None)
            if spent is None:
                instance.queue.popleft()
            if instance.queue:
                self._busy.append(instance)
            budget -= spent or 0
        return bool(self._busy)

    # Subscribers

    def instance(self, name: str) -> Instance:
        """The instance of that name; it is made if need be. `sweep` forgets those that nobody uses."""
        instance = self.instances.get(name)
        if instance is None:
            instance = self.instances[name] = Instance(name, self._lost, self._lost_at)
        return instance

    def join(self, instance_name: str, receiver: Receiver) -> Subscriber:
        """Let a browser in. It must `leave` in the end. Raises NameTooLong."""
        instance = self.instance(check_name(instance_name, "the instance", self.limits.limits_name))
        instance.subscribers += 1
        self.counters.clients_total += 1
        return Subscriber(instance, receiver)

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a browser; nothing is sent to it any more."""
        subscriber.instance.subscribers -= 1
        self.unsubscribe(subscriber, tuple(subscriber.subscriptions))

    def subscribe(self, subscriber: Subscriber, channels: Sequence[str]) -> None:
        """Add channels; all of them, or none where it raises CommandError or NameTooLong."""
        held = subscriber.subscriptions
        new = [name for name in channels if name not in held]
        if len(held) + len(new) > self.limits.limits_subscriptions:
            raise CommandError(f"a connection may have {self.limits.limits_subscriptions} subscriptions")
        for name in new:
            check_name(name, "a channel", self.limits.limits_name)
        sequence = self.archive.sequence
        for name in new:
            held[name] = sequence
            subscriber.instance.channels.add(name, subscriber.receiver)

    def unsubscribe(self, subscriber: Subscriber, channels: Sequence[str]) -> None:
        """Take channels away; those that it does not have are no error."""
        for name in channels:
            if subscriber.subscriptions.pop(name, None) is not None:
                subscriber.instance.channels.discard(name, subscriber.receiver)

    # Replay

    def replay_age(
        self, subscriber: Subscriber, age: float, now: float, done: Callable[[Recovery], None]
    ) -> None:
        """Send again what is `age` seconds old or younger, whether or not it was sent before."""
        self.archive.expire(now)
        oldest = now - age
        entries = subscriber.instance.history.select(
            subscriber.subscriptions, lambda entry: entry.at >= oldest
        )
        self._replay(subscriber, entries, Recovery(len(entries), recovered=True), done)

    def resume(self, subscriber: Subscriber, after: Sequence[str], now: float) -> Resumption:
        """Find where a reader goes on that had the messages `after`, or was told these positions."""
        self.archive.expire(now)
        history = subscriber.instance.history
        return Resumption(history, subscriber.subscriptions, after, self._origin, self.epoch)

    def replay_after(
        self, subscriber: Subscriber, after: Sequence[str], now: float, done: Callable[[Recovery], None]
    ) -> None:
        """Send what came later than the messages or positions `after`, save what this browser has or gets anyway.

        `done` is called once the messages have been handed over.
        """
        self.replay(subscriber, self.resume(subscriber, after, now), done)

    def replay(
        self, subscriber: Subscriber, resumption: Resumption, done: Callable[[Recovery], None]
    ) -> None:
        """Send what a resumption says is missing; `done` is called once it has been handed over."""
        missing = resumption.missing(subscriber.instance.history, subscriber.subscriptions)
        entries = [entry for entry in missing if not _is_live(subscriber, entry)]
        self._replay(subscriber, entries, Recovery(len(entries), resumption.recovered), done)

    def position(self, subscriber: Subscriber, until: Moment, early: tuple[bytes, ...] = ()) -> str:
        """Name the place at which a subscriber stands that has had everything accepted until a moment.

        `early`: what it has had beside, as its resumption says.
        """
        had = subscriber.instance.history.newest(subscriber.subscriptions, until.sequence, REMEMBERED)
        recent = tuple(digest(entry.message.unique_id) for entry in had if entry.at > until.at - RECENT)
        return Position(self._origin, until.sequence, self.epoch + until.at, recent, early).text()

    def moment(self, now: float) -> Moment:
        """What has been accepted by now."""
        return Moment(self.archive.sequence, now)

    def moment_of(self, frame: Frame) -> Moment:
        """When its message was accepted; the beginning of time where it has been forgotten."""
        entry = self.instance(frame.instance).history.entry(frame.unique_id)
        return Moment(entry.sequence, entry.at) if entry else Moment(0, -self.epoch)

    def last(self, subscriber: Subscriber, now: float) -> str | None:
        """Name the place where this browser may resume. None while messages are on their way."""
        return None if subscriber.instance.queue else self.position(subscriber, self.moment(now))

    def _replay(
        self, subscriber: Subscriber, entries: list[Entry], result: Recovery, done: Callable[[Recovery], None]
    ) -> None:
        """Hand the messages over when everything that was accepted before has been."""
        held = frozenset(subscriber.subscriptions)
        frames = (_frame_for(entry.message, held) for entry in entries)
        job = self._hand_over(subscriber, frames, result, done)
        if subscriber.instance.queue:
            self._enqueue(subscriber.instance, job)
        else:
            next(job, None)
            next(job, None)

    def _hand_over(
        self,
        subscriber: Subscriber,
        frames: Iterator[bytes],
        result: Recovery,
        done: Callable[[Recovery], None],
    ) -> Iterator[int]:
        if result.messages:
            subscriber.receiver.send_all(frames)
            self.counters.messages_out += result.messages
        done(result)
        yield 1 + result.messages // 8

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

    @property
    def connections(self) -> int:
        """The browsers that are connected now."""
        return sum(instance.subscribers for instance in self.instances.values())

    def subscribed(self, name: str) -> Subscribed:
        """How many browsers there are, here and now."""
        instance = self.instances.get(name)
        return Subscribed(
            instance.subscribers if instance else 0,
            self.connections,
            self.counters.clients_total,
            self.counters.messages_out,
        )

    def status(self, name: str, now: float, subscribed: Subscribed | None = None) -> dict[str, Any]:
        """What the status page says of an instance, as the Node.js server names it.

        `subscribed` counts the browsers where they are not this hub's own.
        """
        self.archive.expire(now)
        subscribed = subscribed or self.subscribed(name)
        instance = self.instances.get(name) or Instance(name)
        age = instance.history.age(now)
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
        }


def _fan_out(frame: bytes, receivers: Sequence[Receiver]) -> Iterator[int]:
    """Send a frame to each receiver, a slice at a time."""
    for start in range(0, len(receivers), SLICE):
        part = receivers[start : start + SLICE]
        for receiver in part:
            receiver.send(frame)
        yield len(part)


def _frame_for(message: Message, held: frozenset[str]) -> bytes:
    return message.frame(tuple(name for name in message.channels if name in held))


def _is_live(subscriber: Subscriber, entry: Entry) -> bool:
    """Whether the browser listened when the message came, and so got it, or gets it, without a replay."""
    held = subscriber.subscriptions
    return any(held.get(name, entry.sequence) < entry.sequence for name in entry.message.channels)
