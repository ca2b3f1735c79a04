"""What clients of a cluster must receive: everything once and in order, unless they learn of a gap."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.support.mesh import Mesh
from tests.support.readers import Memory, Reader, Received, Transport


@dataclass
class Publication:
    """A message that a node has accepted. `origin` and `number` are those that it gave."""

    unique_id: str
    channels: tuple[str, ...]
    origin: str
    number: int
    node: str
    place: int  # among all publications
    is_acknowledged: Callable[[], bool]
    may_be_lost: bool = False  # with a node that was killed before another one had it


class Publications:
    """All messages that were published in a cluster."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.by_id: dict[str, Publication] = {}
        self.all: list[Publication] = []

    def publish(self, node: str, channels: Sequence[str] = ("a",), instance: str = "default") -> str:
        """Publish a message at a node that runs; return its uniqueID."""
        unique_id = f"m{len(self.all)}@{node}"
        is_acknowledged = self._mesh.publish(node, unique_id, *channels, instance=instance)
        own = self._mesh.hub(node).origins.own
        assert own is not None
        made = Publication(
            unique_id, tuple(channels), own.name, own.number, node, len(self.all), is_acknowledged
        )
        self.by_id[unique_id] = made
        self.all.append(made)
        return unique_id

    def _is_kept(self, each: Publication) -> bool:
        """Whether a process that runs has the message, or had it."""
        for hub in self._mesh.hubs():
            origin = hub.origins.get(each.origin)
            if origin is not None and origin.base < each.number <= origin.number:
                return True
            if origin is not None and each.number in origin.held:
                return True
        return False

    def on_killed(self) -> None:
        """Note which messages may be lost now."""
        for each in self.all:
            each.may_be_lost = each.may_be_lost or not self._is_kept(each)

    def is_lost(self, each: Publication) -> bool:
        """Whether no client can expect the message."""
        return not each.is_acknowledged() or (each.may_be_lost and not self._is_kept(each))


@dataclass
class Client:
    """A reader, and what it has received since its first connection or the last gap."""

    name: str
    reader: Reader
    published: Publications
    since: int = 0  # it may miss publications before this place
    connected_at: int = 0
    received: list[str] = field(default_factory=list)
    _recognized: set[str] = field(default_factory=set)
    gaps: int = 0
    resumed: int = 0

    @classmethod
    def make(
        cls,
        mesh: Mesh,
        published: Publications,
        name: str,
        transport: Transport,
        memory: Memory,
        *channels: str,
    ) -> "Client":
        """A client that is not connected yet."""

        def on_received(received: Received) -> None:
            client.note(received)

        client = cls(name, Reader(mesh, transport, memory, channels, on_received), published)
        return client

    def connect(self, node: str, place: int = 0) -> bool:
        """Connect to a node; return whether it accepts clients."""
        before = self.reader.after
        here = len(self.published.all)
        self._recognized.update(self.reader.unnamed)
        if not self.reader.connect(node, place):
            return False
        if not before:
            self._forget(here)
        else:
            self.resumed += 1
        self.connected_at = here
        return True

    def disconnect(self) -> None:
        """Leave; what was not read is lost."""
        self.reader.disconnect()

    def read(self, count: int | None = None) -> None:
        """Read; a poll is repeated at the same node, and a client that was disconnected returns there."""
        self.reader.read(count)
        if not self.reader.is_connected and self.reader.node:
            self.connect(self.reader.node, self.reader.place)

    def _forget(self, place: int) -> None:
        self.since = place
        self.received.clear()

    def note(self, received: Received) -> None:
        """Check what the reader received."""
        if received.is_gap:
            self.gaps += 1
            self._forget(self.connected_at)
        if received.unique_id is None:
            return
        this = self.published.by_id[received.unique_id]
        if self.reader.memory is Memory.NAMES:
            self._recognized.add(this.unique_id)  # names show little: the client has to compare them itself
        elif this.unique_id not in self._recognized:
            assert this.unique_id not in self.received, f"{self.name} received {this.unique_id} twice"
            for each in map(self.published.by_id.__getitem__, self.received):
                is_ordered = each.origin != this.origin or each.number < this.number
                is_ordered = is_ordered or this.place < self.since  # published before it subscribed
                assert is_ordered, f"{self.name} received {this.unique_id} after {each.unique_id}"
        self.received.append(this.unique_id)

    def check_complete(self) -> None:
        """Check that it has received everything by now."""
        missed = [
            f"{each.unique_id} ({each.origin} {each.number})"
            for each in self.published.all[self.since :]
            if not self.published.is_lost(each)
            and set(each.channels) & set(self.reader.channels)
            and each.unique_id not in self.received
        ]
        assert not missed, f"{self.name} missed {missed}"
