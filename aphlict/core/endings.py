"""Connections that have ended: the last ones are remembered for traces."""

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import NamedTuple

from msgspec import DecodeError, Struct
from msgspec.json import decode

from aphlict.core.hub import Hub
from aphlict.core.metrics import Cause, Transport
from aphlict.core.subscriptions import Instance, Subscriber
from aphlict.protocol.websocket import TEXT

MAX_ENDED = 10_000  # connections
MAX_CHANNELS = 8  # of each, and characters of their names
MAX_NAME_CHARACTERS = 512
MAX_USER = 128  # characters of the subject of a token

_TEXT_FRAME = bytes([0x80 | TEXT])


class Client(NamedTuple):
    """A client for the log and for traces. `user` is the subject of its token: empty for a token without one, None
    without a token."""

    number: int
    address: str
    transport: Transport
    user: str | None


class EndedConnection:
    """A client that is gone, or a poll that was answered. `channels`: the first of its `channel_count`, each with the
    sequence at which it was subscribed. `replayed`: as of a Subscriber. `written_until`: the sequence up to which all
    messages had been written to its socket. `at`: when it ended (monotonic seconds). `is_answered`: it is a poll with
    a response."""

    __slots__ = (
        "at",
        "cause",
        "channel_count",
        "channels",
        "client",
        "instance",
        "is_answered",
        "replayed",
        "written_until",
    )

    def __init__(
        self,
        client: Client,
        subscriber: Subscriber,
        cause: Cause,
        written_until: int,
        at: float,
        *,
        is_answered: bool = False,
    ) -> None:
        self.client = client
        self.instance = subscriber.instance.name
        self.channel_count = len(subscriber.subscriptions)
        self.channels = first_channels(subscriber.subscriptions)
        self.replayed = subscriber.replayed
        self.cause = cause
        self.written_until = written_until
        self.at = at
        self.is_answered = is_answered


def first_channels(subscriptions: Mapping[str, int]) -> dict[str, int]:
    """Return the first subscriptions, as many as are noted."""
    if len(subscriptions) <= MAX_CHANNELS and sum(map(len, subscriptions)) <= MAX_NAME_CHARACTERS:
        return dict(subscriptions)  # nearly always
    first, left = dict[str, int](), MAX_NAME_CHARACTERS
    for name, sequence in islice(subscriptions.items(), MAX_CHANNELS):
        left -= len(name)
        if left < 0:
            break
        first[name] = sequence
    return first


class EndedConnections:
    """The connections that ended last, oldest first, and the polls that were answered last. Nothing is noted before
    a connection or a poll ends."""

    def __init__(self, size: int = MAX_ENDED) -> None:
        self._ring: deque[EndedConnection] = deque(maxlen=size)
        self._polls: deque[EndedConnection] = deque(maxlen=size)

    def snapshot(self) -> tuple[EndedConnection, ...]:
        """Return the connections, and the polls that were not answered."""
        return tuple(self._ring)

    def answered_polls(self) -> tuple[EndedConnection, ...]:
        """Return the polls that were answered."""
        return tuple(self._polls)

    def add(
        self,
        hub: Hub,
        subscriber: Subscriber,
        client: Client,
        cause: Cause,
        unsent: tuple[bytes, ...],
        now: float,
    ) -> None:
        """Note the end of a connection; to be called before its subscriber leaves the hub.

        `unsent`: the first frames that were not written to its socket. A client that has neither subscribed nor sent
        a token is not noted.
        """
        if subscriber.subscriptions or client.user is not None:
            instance = subscriber.instance
            until = written_until(hub, instance, unsent)
            if instance.queue and (pending := hub.fan_out.pending(instance)):
                until = min(until, _before(instance, pending[0].message.unique_id))
            self._ring.append(EndedConnection(_shortened(client), subscriber, cause, until, now))

    def add_answered_poll(
        self, subscriber: Subscriber, client: Client, cause: Cause, until: int, now: float
    ) -> None:
        """Note the end of a poll, as `add`; `until`: the sequence up to which its response had all messages."""
        ended = EndedConnection(_shortened(client), subscriber, cause, until, now, is_answered=True)
        self._polls.append(ended)


def _shortened(client: Client) -> Client:
    return client._replace(user=client.user[:MAX_USER]) if client.user else client


def written_until(hub: Hub, instance: Instance, unsent: Iterable[bytes]) -> int:
    """Return the sequence up to which a client was sent all messages. `unsent`: frames that wait for it, in order."""
    for frame in unsent:
        if (unique_id := message_in(frame)) is not None:
            return _before(instance, unique_id)
    return hub.history.sequence


def _before(instance: Instance, unique_id: str) -> int:
    entry = instance.history.get(unique_id)
    # Everything that is still in the history came after a message that has been evicted.
    return 0 if entry is None else entry.sequence - 1


class _HasUniqueID(Struct, rename={"unique_id": "uniqueID"}):
    unique_id: str | int | None = None


def message_in(frame: bytes) -> str | None:
    """Return the uniqueID of the message in a WebSocket frame or an event of a stream; None for other bytes."""
    if frame[:1] == _TEXT_FRAME:
        text = frame[{126: 4, 127: 10}.get(frame[1], 2) :]
    else:
        text = frame.partition(b"\ndata: ")[2].replace(b"\ndata: ", b"\n")
    try:
        unique_id = decode(text, type=_HasUniqueID).unique_id
    except (DecodeError, RecursionError, ValueError):
        return None
    return None if unique_id is None else str(unique_id)
