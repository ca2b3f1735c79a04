"""The hub without sockets: who listens, and messages for them."""

import json
from collections.abc import Iterator

from aphlict.config.settings import Limits
from aphlict.core.hub import Hub
from aphlict.core.message import Frame, Message, parse
from aphlict.core.subscriptions import Subscriber
from tests.support.holding import Connection

HOUR = 3600.0


class Alone:
    """A transport without peers."""

    def forward(self, _message: Message, /) -> None:
        """Do nothing."""


class Listener:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.holder = Connection()

    def send(self, frame: bytes, /) -> None:
        """Keep a frame's uniqueID."""
        assert isinstance(frame, Frame)
        self.names.append(frame.unique_id)

    def send_all(self, frames: Iterator[bytes], /) -> None:
        """Keep them all."""
        for frame in frames:
            self.send(frame)


class Reader:
    """A reader who may come back, to any node, with the words that it brings along."""

    def __init__(self, *channels: str) -> None:
        self.channels = channels or ("A",)
        self.names: list[str] = []
        self.last = ""

    def poll(self, hub: Hub, now: float) -> bool:
        """Take what came since the last time; whether nothing can be missing."""
        listener = Listener()
        subscriber = hub.join("default", listener)
        hub.subscribe(subscriber, self.channels)
        early: tuple[bytes, ...] = ()
        recovered = True
        if self.last:
            resumption = hub.resume(subscriber, [self.last], now)
            early, recovered = resumption.early, resumption.recovered
            hub.replay(subscriber, resumption, lambda _recovery: None)
        self.names += listener.names
        self.last = hub.position(subscriber, hub.moment(now), early)
        hub.leave(subscriber)
        return recovered


def make_hub(*, started: float = 0.0, epoch: float = 1e9) -> Hub:
    """A node's hub; `epoch` is the Unix time at which its clock begins."""
    hub = Hub("thisnode", Alone(), Limits(), lambda: None, started)
    hub.epoch = epoch
    return hub


def join(hub: Hub, *channels: str) -> tuple[Subscriber, Listener]:
    """A subscriber of these channels, and what it hears."""
    listener = Listener()
    subscriber = hub.join("default", listener)
    hub.subscribe(subscriber, channels)
    return subscriber, listener


def publish(hub: Hub, unique_id: str, now: float, *channels: str) -> None:
    """Publish a message."""
    body = json.dumps({"uniqueID": unique_id, "subscribers": channels or ("A",)}).encode()
    hub.publish(parse(body, "default")[0][0], now)
