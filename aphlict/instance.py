"""What belongs together: channels, history and browsers of one instance."""

from collections import deque
from collections.abc import Iterator

from aphlict.channels import Channels, Receiver
from aphlict.history import History
from aphlict.message import random_name

ORIGIN_SIZE = 16  # letters of the name that stands for the beginning of a history


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
