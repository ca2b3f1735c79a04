"""The hub against a simple model that keeps everything: each message once, in order, to its subscribers."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from aphlict.core import fanout
from aphlict.core.hub import Recovery
from aphlict.core.subscriptions import Subscriber
from tests.support.hub import FakeSubscriber, HubHarness

CHANNELS = st.sampled_from(["a", "b", "c"])
SETS = st.lists(CHANNELS, max_size=3, unique=True)
INSTANCES = st.sampled_from(["default", "acme"])
SMALL_SLICE = 2  # so that few subscribers make several slices
WINDOW = 60.0


@dataclass
class Published:
    """A message as the model keeps it."""

    name: str
    instance: str
    channels: list[str]
    at: float


@dataclass
class Client:
    """A subscriber, and what it must have received when all work is done: (uniqueID, subscribers)."""

    fake: FakeSubscriber
    subscriber: Subscriber
    instance: str
    channels: set[str] = field(default_factory=set)
    expected: list[tuple[str, list[str]]] = field(default_factory=list)
    since: dict[str, int] = field(default_factory=dict)

    def expect(self, message: Published) -> None:
        """Expect this next."""
        self.expected.append((message.name, [name for name in message.channels if name in self.channels]))


class HubMachine(RuleBasedStateMachine):
    """Publishes, subscriptions and replays in any order, with unfinished work between them."""

    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self._slice, fanout.SLICE = fanout.SLICE, SMALL_SLICE
        self.harness = HubHarness()
        self.published: list[Published] = []
        self.open: list[Client] = []
        self.recoveries: list[tuple[Recovery, Recovery]] = []

    def teardown(self) -> None:
        """Restore what other tests use."""
        self.finish_work()
        fanout.SLICE = self._slice

    def _kept(self, instance: str) -> list[Published]:
        horizon = self.harness.now - WINDOW
        return [each for each in self.published if each.instance == instance and each.at >= horizon]

    @rule(target=clients, instance=INSTANCES, channels=SETS)
    def connect(self, instance: str, channels: list[str]) -> Client:
        """A subscriber joins."""
        fake = FakeSubscriber()
        client = Client(fake, self.harness.hub.join(instance, fake), instance)
        self.open.append(client)
        self._subscribe(client, channels)
        return client

    @rule(client=clients, channels=SETS)
    def subscribe(self, client: Client, channels: list[str]) -> None:
        """Subscribe to more channels."""
        self.finish_work()
        self._subscribe(client, channels)

    def _subscribe(self, client: Client, channels: list[str]) -> None:
        self.harness.hub.subscribe(client.subscriber, channels)
        for name in channels:
            client.since.setdefault(name, len(self.published))
        client.channels.update(channels)

    @rule(client=clients, channels=SETS)
    def unsubscribe(self, client: Client, channels: list[str]) -> None:
        """Unsubscribe, after all queued work, whose deliveries may still arrive."""
        self.finish_work()
        self.harness.hub.unsubscribe(client.subscriber, channels)
        client.channels.difference_update(channels)
        for name in channels:
            client.since.pop(name, None)

    @rule(client=consumes(clients))
    def disconnect(self, client: Client) -> None:
        """A subscriber leaves."""
        self.finish_work()
        self.harness.hub.leave(client.subscriber)
        self.open.remove(client)

    @rule(instance=INSTANCES, channels=SETS, seconds=st.sampled_from([0, 0, 0, 0.5, 20]))
    def publish(self, instance: str, channels: list[str], seconds: float) -> None:
        """Publish a message, after some time. In a longer time, messages of a queued replay could be evicted."""
        if seconds > 1:
            self.finish_work()
        self.harness.now += seconds
        message = Published(f"m{len(self.published)}", instance, channels, self.harness.now)
        self.published.append(message)
        receivers = [
            client
            for client in self.open
            if client.instance == instance and client.channels.intersection(channels)
        ]
        receipt = self.harness.publish(message.name, channels, instance)
        assert receipt.matched == len(receivers)
        assert not receipt.duplicate
        for client in receivers:
            client.expect(message)

    @rule(data=st.data())
    def publish_again(self, data: st.DataObject) -> None:
        """Publish a message again while the history keeps it."""
        instance = data.draw(INSTANCES)
        if kept := self._kept(instance):
            message = data.draw(st.sampled_from(kept))
            assert self.harness.publish(message.name, ["a", "b", "c"], instance).duplicate

    @rule(client=clients, age=st.sampled_from([0.0, 0.5, 10.0, 25.0, 60.0, 1000.0]))
    def replay_age(self, client: Client, age: float) -> None:
        """Replay by age."""
        again = [
            each
            for each in self._kept(client.instance)
            if each.at >= self.harness.now - age and client.channels.intersection(each.channels)
        ]
        for message in again:
            client.expect(message)
        self._replay(client, Recovery(len(again), recovered=True), age=age)

    @rule(client=clients, data=st.data())
    def replay_after(self, client: Client, data: st.DataObject) -> None:
        """A subscriber rejoins and resumes after what it received last."""
        of_instance = [each for each in self.published if each.instance == client.instance]
        if not of_instance:
            return
        last = data.draw(st.sampled_from(of_instance))
        kept = self._kept(client.instance)
        recovered = last in kept or of_instance.index(last) + 1 == len(of_instance) - len(kept)
        missing = [
            each
            for each in kept
            if (not recovered or self.published.index(each) > self.published.index(last))
            and client.channels.intersection(each.channels)
            and not self._came_live(client, each)
        ]
        for message in missing:
            client.expect(message)
        self._replay(client, Recovery(len(missing), recovered), after=last.name)

    def _came_live(self, client: Client, message: Published) -> bool:
        position = self.published.index(message)
        return any(client.since.get(name, position + 1) <= position for name in message.channels)

    def _replay(self, client: Client, expected: Recovery, **what: Any) -> None:
        def on_done(recovery: Recovery) -> None:
            self.recoveries.append((recovery, expected))
            assert client.fake.ids == [name for name, _ in client.expected][: len(client.fake.ids)]

        hub, now = self.harness.hub, self.harness.now
        if "age" in what:
            hub.replay_age(client.subscriber, what["age"], now, on_done)
        else:
            hub.replay_after(client.subscriber, [what["after"]], now, on_done)

    @rule()
    def work(self) -> None:
        """Do some of the queued work."""
        self.harness.hub.run_slice()

    @rule()
    def sweep(self) -> None:
        """Sweep."""
        self.harness.hub.sweep(self.harness.now)

    @rule()
    def finish_work(self) -> None:
        """Do all queued work: every subscriber has received what is for it, in order, and nothing else."""
        self.harness.finish()
        for client in self.open:
            received = [(each["uniqueID"], each["subscribers"]) for each in client.fake.messages]
            assert received == client.expected
        for recovery, expected in self.recoveries:
            assert recovery == expected
        self.recoveries.clear()

    @invariant()
    def messages_arrive_in_order(self) -> None:
        """At any time, what was received is a prefix of what is expected."""
        for client in self.open:
            expected = [name for name, _ in client.expected]
            assert client.fake.ids == expected[: len(client.fake.deliveries)]

    @invariant()
    def counts_are_right(self) -> None:
        """The status matches the model."""
        assert self.harness.hub.connections == len(self.open)
        for instance in ("default", "acme"):
            status = self.harness.hub.status(instance, self.harness.now)
            assert status["clients.active"] == sum(each.instance == instance for each in self.open)
            assert status["history.size"] == len(self._kept(instance))


TestHub = HubMachine.TestCase
TestHub.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
