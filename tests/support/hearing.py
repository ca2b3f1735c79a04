"""A hub without sockets: receivers that write down what they get, and a clock that is set by hand."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from aphlict.config.settings import Limits
from aphlict.core.hub import Hub, Receipt, Recovery
from aphlict.core.message import Message, parse
from aphlict.core.subscriptions import Subscriber
from tests.support.holding import Connection

OWN = "own0000000000000"


class Ear:
    """A receiver that keeps the objects that were sent to it."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.holder = Connection()

    def send(self, frame: bytes, /) -> None:
        """Keep the JSON in a frame of the server."""
        start = {126: 4, 127: 10}.get(frame[1], 2)
        self.heard.append(json.loads(frame[start:]))

    def send_all(self, frames: Iterator[bytes], /) -> None:
        """Keep these one after the other."""
        for frame in frames:
            self.send(frame)

    @property
    def ids(self) -> list[str]:
        """The uniqueIDs of what was heard."""
        return [each["uniqueID"] for each in self.heard]


class OtherNodes:
    """A transport that keeps what it is given."""

    def __init__(self) -> None:
        self.forwarded: list[str] = []
        self.touched: list[tuple[str, ...]] = []

    def forward(self, message: Message, /) -> None:
        """Keep the name of a message, and the nodes that had it before."""
        self.forwarded.append(message.unique_id)
        self.touched.append(message.touched)


class Stage:
    """A hub, its other nodes, and the time, which stands still unless a test moves it."""

    def __init__(self, **limits: int) -> None:
        self.now = 1000.0
        self.wakes = 0
        self.others = OtherNodes()
        self.hub = Hub(OWN, self.others, Limits(**limits), self._on_wake)

    def _on_wake(self) -> None:
        self.wakes += 1

    def publish(
        self, name: str, channels: Sequence[str] = ("a",), instance: str = "default", **more: Any
    ) -> Receipt:
        """Publish a message of this name."""
        body = {"uniqueID": name, "subscribers": list(channels), **more}
        messages, _ = parse(json.dumps(body).encode(), instance)
        return self.hub.publish(messages[0], self.now)

    def join(
        self, *channels: str, instance: str = "default", ear: Ear | None = None
    ) -> tuple[Ear, Subscriber]:
        """A browser that has subscribed to these channels."""
        ear = ear or Ear()
        subscriber = self.hub.join(instance, ear)
        self.hub.subscribe(subscriber, channels)
        return ear, subscriber

    def replay_age(self, subscriber: Subscriber, age: float = 60.0) -> Recovery:
        """Have what is this old or younger sent again."""
        done: list[Recovery] = []
        self.hub.replay_age(subscriber, age, self.now, done.append)
        self.finish()
        return done.pop()

    def replay_after(self, subscriber: Subscriber, *after: str) -> Recovery:
        """Have what came after these sent."""
        done: list[Recovery] = []
        self.hub.replay_after(subscriber, after, self.now, done.append)
        self.finish()
        return done.pop()

    def finish(self) -> int:
        """Do all work that waits; how many slices that were."""
        slices = 0
        while self.hub.work():
            slices += 1
        return slices
