"""A hub without sockets: subscribers that record what they receive, and a clock that the test sets."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from aphlict.config.settings import Limits
from aphlict.core.hub import Hub, MessageReceipt, Recovery
from aphlict.core.message import Delivery, Message, parse_body
from aphlict.core.subscriptions import Subscriber
from aphlict.core.version_vector import new_origin_name

THIS_NODE = "thisnode00000000"


class FakeConnection:
    """A connection as a budget sees it: `limit_key` is its address, `limit` the limit that it was closed for."""

    def __init__(self, limit_key: object = None) -> None:
        self.limit_key = limit_key
        self.limit: str | None = None

    def close_over_limit(self, limit: str, /) -> None:
        """Record the limit."""
        self.limit = limit


class FakeSubscriber:
    """Records what a hub delivers to it."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.deliveries: list[Delivery] = []
        self.holder = FakeConnection()

    def deliver(self, delivery: Delivery, /) -> None:
        """Record a delivery."""
        self.deliveries.append(delivery)

    def deliver_all(self, deliveries: Iterator[Delivery], /) -> None:
        """Record those of a replay."""
        for delivery in deliveries:
            self.deliver(delivery)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages as the subscriber receives them."""
        return [json.loads(each.json) for each in self.deliveries]

    @property
    def ids(self) -> list[str]:
        """The uniqueIDs of the messages."""
        return [each["uniqueID"] for each in self.messages]

    def __repr__(self) -> str:
        return self.name


class FakeForwarder:
    """Records what a hub forwards to other nodes: uniqueIDs, and the nodes that had the message before."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.touched: list[tuple[str, ...]] = []

    def forward(self, message: Message, /) -> None:
        """Record a message, without keeping it alive."""
        self.ids.append(message.unique_id)
        self.touched.append(message.touched)


def make_hub(*, started: float = 0.0, epoch: float = 1e9, origin: str | None = None) -> Hub:
    """Make a node's hub; `epoch` is the Unix time at which its clock begins."""
    hub = Hub(THIS_NODE, FakeForwarder(), Limits(), lambda: None, started, origin or new_origin_name())
    hub.epoch = epoch
    return hub


def join(hub: Hub, *channels: str) -> tuple[FakeSubscriber, Subscriber]:
    """Subscribe to these channels of the default instance."""
    fake = FakeSubscriber()
    subscriber = hub.join("default", fake)
    hub.subscribe(subscriber, channels)
    return fake, subscriber


def publish(hub: Hub, unique_id: str, now: float, *channels: str) -> None:
    """Publish a message, on channel A if none is given."""
    body = json.dumps({"uniqueID": unique_id, "subscribers": channels or ("A",)}).encode()
    hub.publish(parse_body(body, "default")[0][0], now)


class HubHarness:
    """A hub, what it forwards, and the time, which a test moves."""

    def __init__(self, **limits: int) -> None:
        self.now = 1000.0
        self.wakes = 0
        self.forwarder = FakeForwarder()
        self.hub = Hub(THIS_NODE, self.forwarder, Limits(**limits), self._on_wake, origin=new_origin_name())

    def _on_wake(self) -> None:
        self.wakes += 1

    def publish(
        self, name: str, channels: Sequence[str] = ("a",), instance: str = "default", **more: Any
    ) -> MessageReceipt:
        """Publish a message with this uniqueID."""
        body = {"uniqueID": name, "subscribers": list(channels), **more}
        messages, _ = parse_body(json.dumps(body).encode(), instance)
        return self.hub.publish(messages[0], self.now)

    def join(
        self, *channels: str, instance: str = "default", fake: FakeSubscriber | None = None
    ) -> tuple[FakeSubscriber, Subscriber]:
        """Subscribe to these channels."""
        fake = fake or FakeSubscriber()
        subscriber = self.hub.join(instance, fake)
        self.hub.subscribe(subscriber, channels)
        return fake, subscriber

    def replay_age(self, subscriber: Subscriber, age: float = 60.0) -> Recovery:
        """Replay the messages of this age or younger."""
        done: list[Recovery] = []
        self.hub.replay_age(subscriber, age, self.now, done.append)
        self.finish()
        return done.pop()

    def replay_after(self, subscriber: Subscriber, *after: str) -> Recovery:
        """Replay the messages after these."""
        done: list[Recovery] = []
        self.hub.replay_after(subscriber, after, self.now, done.append)
        self.finish()
        return done.pop()

    def finish(self) -> int:
        """Do all pending work; return the number of slices."""
        slices = 0
        while self.hub.run_slice():
            slices += 1
        return slices
