"""Which subscriber listens to what, within one instance."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class Receiver(Protocol):
    """Where frames for a subscriber go. Neither method raises or waits."""

    def send(self, frame: bytes, /) -> None:
        """Send one frame."""

    def send_all(self, frames: Iterator[bytes], /) -> None:
        """Send these before anything that is sent later, taking them as the network takes them."""


class Crowd:
    """The subscribers of a channel that has more than one, and a snapshot of them that lasts until they change."""

    __slots__ = ("_snapshot", "members")

    def __init__(self, members: set[Receiver]) -> None:
        self.members = members
        self._snapshot: tuple[Receiver, ...] | None = None

    def add(self, member: Receiver) -> None:
        """Add a member."""
        self.members.add(member)
        self._snapshot = None

    def discard(self, member: Receiver) -> None:
        """Take a member away."""
        self.members.discard(member)
        self._snapshot = None

    def snapshot(self) -> tuple[Receiver, ...]:
        """The members now, as a value that never changes."""
        if self._snapshot is None:
            self._snapshot = tuple(self.members)
        return self._snapshot


class Group(NamedTuple):
    """Receivers of a message that subscribed to the same ones of its channels."""

    channels: tuple[str, ...]
    receivers: tuple[Receiver, ...]


class Channels:
    """The channels of an instance. A channel with one subscriber, the common case, holds just that one."""

    __slots__ = ("_crowds", "_single")

    def __init__(self) -> None:
        self._single: dict[str, Receiver] = {}
        self._crowds: dict[str, Crowd] = {}

    def __len__(self) -> int:
        return len(self._single) + len(self._crowds)

    def add(self, name: str, receiver: Receiver) -> None:
        """Let the receiver listen to the channel."""
        crowd = self._crowds.get(name)
        if crowd is not None:
            crowd.add(receiver)
            return
        other = self._single.setdefault(name, receiver)
        if other is not receiver:
            del self._single[name]
            self._crowds[name] = Crowd({other, receiver})

    def discard(self, name: str, receiver: Receiver) -> None:
        """Let the receiver listen to the channel no longer."""
        crowd = self._crowds.get(name)
        if crowd is None:
            if self._single.get(name) is receiver:
                del self._single[name]
            return
        crowd.discard(receiver)
        if len(crowd.members) == 1:
            del self._crowds[name]
            self._single[name] = crowd.members.pop()

    def listeners(self, name: str) -> tuple[Receiver, ...]:
        """Who listens to one channel."""
        crowd = self._crowds.get(name)
        if crowd is not None:
            return crowd.snapshot()
        single = self._single.get(name)
        return () if single is None else (single,)

    def match(self, names: Sequence[str]) -> list[Group]:
        """Who listens to any of these channels, each once, grouped by the channels that they listen to."""
        if len(names) == 1:
            receivers = self.listeners(names[0])
            return [Group(tuple(names), receivers)] if receivers else []
        heard = [(name, receivers) for name in names if (receivers := self.listeners(name))]
        if len(heard) <= 1:
            return [Group((name,), receivers) for name, receivers in heard]
        masks: dict[Receiver, int] = {}
        for position, (_, receivers) in enumerate(heard):
            bit = 1 << position
            for receiver in receivers:
                masks[receiver] = masks.get(receiver, 0) | bit
        return _by_mask(masks, [name for name, _ in heard])


def _by_mask(masks: dict[Receiver, int], names: list[str]) -> list[Group]:
    groups: dict[int, list[Receiver]] = {}
    for receiver, mask in masks.items():
        groups.setdefault(mask, []).append(receiver)
    return [
        Group(tuple(name for position, name in enumerate(names) if mask >> position & 1), tuple(receivers))
        for mask, receivers in groups.items()
    ]
