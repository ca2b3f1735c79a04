"""Where a browser may resume, and when the hub can promise that nothing is missing."""

import json
from collections.abc import Iterator

from aphlict.config.settings import Limits
from aphlict.deliveries import SLICE
from aphlict.history import MAX_AGE
from aphlict.hub import Hub, Recovery
from aphlict.instance import Subscriber
from aphlict.message import Message, parse


class Alone:
    """A transport without peers."""

    def forward(self, _message: Message, /) -> None:
        """Do nothing."""


class Listener:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def send(self, frame: bytes, /) -> None:
        """Keep a frame."""
        self.frames.append(frame)

    def send_all(self, frames: Iterator[bytes], /) -> None:
        """Keep them all."""
        self.frames.extend(frames)


def make_hub(started: float = 0.0) -> Hub:
    return Hub("thisnode", Alone(), Limits(), lambda: None, started)


def join(hub: Hub, channel: str = "A") -> Subscriber:
    subscriber = hub.join("default", Listener())
    hub.subscribe(subscriber, [channel])
    return subscriber


def publish(hub: Hub, unique_id: str, channel: str = "A", now: float = 0.0) -> None:
    body = json.dumps({"uniqueID": unique_id, "subscribers": [channel]}).encode()
    hub.publish(parse(body, "default", name_limit=256)[0][0], now)


def resume(hub: Hub, after: str | None, now: float = 0.0) -> Recovery:
    assert after is not None
    results: list[Recovery] = []
    hub.replay_after(join(hub), [after], now, results.append)
    return results[0]


def test_the_newest_message_of_any_channel_is_where_to_resume() -> None:
    hub = make_hub()
    here = join(hub)
    publish(hub, "one", "A")
    publish(hub, "two", "B")
    where = hub.last(here, now=0)
    publish(hub, "three", "A")
    assert resume(hub, where) == (1, True)


def test_nothing_is_missing_after_a_quiet_time_longer_than_the_history() -> None:
    hub = make_hub()
    here = join(hub)
    publish(hub, "one")
    hub.sweep(now=MAX_AGE * 3)
    where = hub.last(here, now=MAX_AGE * 3)
    assert resume(hub, where, now=MAX_AGE * 3) == (0, True)
    publish(hub, "two", now=MAX_AGE * 3)
    assert resume(hub, "one", now=MAX_AGE * 3) == (1, True)


def test_a_message_that_came_and_went_meanwhile_is_missing() -> None:
    hub = make_hub()
    here = join(hub)
    publish(hub, "one")
    where = hub.last(here, now=0)
    publish(hub, "two", now=1)
    assert resume(hub, where, now=MAX_AGE * 3) == (0, False)


def test_the_beginning_of_a_history_is_a_place_to_resume_at() -> None:
    hub = make_hub()
    where = hub.last(join(hub), now=1)
    publish(hub, "one", now=1)
    assert resume(hub, where, now=1) == (1, True)
    assert resume(make_hub(started=2), where, now=2) == (0, False), "a server that has started since"


def test_no_place_is_named_while_messages_are_on_their_way() -> None:
    hub = make_hub()
    listeners = [join(hub) for _ in range(SLICE + 1)]
    publish(hub, "one")
    assert hub.last(listeners[0], now=0) is None
    while hub.work():
        pass
    assert hub.last(listeners[0], now=0)
