"""A cluster in any trouble: a client receives everything once and in order, or learns of a gap."""

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.support.audit import Client, Publications
from tests.support.mesh import Mesh
from tests.support.readers import Memory, Transport

NODES = "ABC"
KINDS = (
    (Transport.WEBSOCKET, Memory.BOTH, ("a",)),
    (Transport.WEBSOCKET, Memory.NAMES, ("a", "b")),
    (Transport.WEBSOCKET, Memory.TWO_TOKENS, ("b",)),
    (Transport.EVENTS, Memory.TOKEN, ("a", "b")),
    (Transport.POLL, Memory.TOKEN, ("b",)),
    (Transport.POLL, Memory.TWO_TOKENS, ("a",)),
)
NODE = st.sampled_from(NODES)
LINK = st.sampled_from([(a, b) for a in NODES for b in NODES if a != b])
CLIENT = st.integers(0, len(KINDS) - 1)
CHANNELS = st.sampled_from([("a",), ("b",), ("a", "b")])
SETTLING_STEPS, SETTLING_SECONDS = 35, 2.0  # longer than repair takes


class MeshMachine(RuleBasedStateMachine):
    """Publishers, clients that roam, and faults of links and nodes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.mesh = Mesh(NODES)
        self.mesh.__enter__()
        self.published = Publications(self.mesh)
        self.clients = [
            Client.make(self.mesh, self.published, f"{a.value} with {b.value}", a, b, *channels)
            for a, b, channels in KINDS
        ]
        for place, client in enumerate(self.clients):
            client.connect(NODES[place % len(NODES)])

    @rule(node=NODE, channels=CHANNELS, count=st.sampled_from([1, 1, 1, 3, 20]))
    def publish(self, node: str, channels: tuple[str, ...], count: int) -> None:
        """Publish messages at a node that runs."""
        process = self.mesh.hub_process(node)
        if process is not None and not process.is_stopped:
            for _ in range(count):
                self.published.publish(node, channels)

    @rule(seconds=st.sampled_from([0.002, 0.05, 0.3, 1.2, 3.0, 7.0, 22.0, 61.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.mesh.advance(seconds)

    @rule(which=CLIENT, node=NODE, count=st.sampled_from([0, 1, 2, None, None]))
    def roam(self, which: int, node: str, count: int | None) -> None:
        """A client reads some of what was sent to it, loses the rest, and moves."""
        self.clients[which].read(count)
        self.clients[which].connect(node)

    @rule(node=NODE)
    def roam_all(self, node: str) -> None:
        """All clients move."""
        for client in self.clients:
            client.read()
            client.connect(node)

    @rule(link=LINK, seconds=st.sampled_from([0.001, 0.1, 0.7, 1.6, 3.0]))
    def delay(self, link: tuple[str, str], seconds: float) -> None:
        """A link becomes slow or fast."""
        self.mesh.links[link].delay = seconds

    @rule(link=LINK, is_silent=st.booleans())
    def cut(self, link: tuple[str, str], *, is_silent: bool) -> None:
        """A link is cut: connections are reset, or packets wait."""
        if is_silent:
            self.mesh.links[link].hang()
        else:
            self.mesh.links[link].break_off()

    @rule(link=LINK)
    def heal(self, link: tuple[str, str]) -> None:
        """A link is repaired."""
        self.mesh.links[link].heal()

    @rule(node=NODE, starts_again=st.booleans())
    def kill(self, node: str, *, starts_again: bool) -> None:
        """A node is killed."""
        if self.mesh.hub_process(node) is not None:
            self.mesh.kill(node)
            self.published.on_killed()
        if starts_again:
            self.start(node)

    @rule(node=NODE)
    def start(self, node: str) -> None:
        """A node is started."""
        if self.mesh.hub_process(node) is None:
            self.mesh.start(node)

    @rule(node=NODE)
    def stop_or_continue(self, node: str) -> None:
        """A node gets SIGSTOP, or SIGCONT."""
        process = self.mesh.hub_process(node)
        if process is not None and process.is_stopped:
            process.resume()
        elif process is not None:
            process.stop()

    def teardown(self) -> None:
        """End all trouble; then every client receives the rest."""
        try:
            self._heal_all()
            for _ in range(SETTLING_STEPS):
                self.mesh.advance(SETTLING_SECONDS)
                for client in self.clients:
                    client.read()
            for client in self.clients:
                client.check_complete()
                event(f"{client.name}: {'gap' if client.gaps else 'resumed' if client.resumed else 'stayed'}")
        finally:
            self.mesh.close()

    def _heal_all(self) -> None:
        for link in self.mesh.links.values():
            link.delay = 0.001
            link.heal()
        for node in NODES:
            process = self.mesh.hub_process(node)
            if process is not None and process.is_stopped:
                process.resume()
            self.start(node)


TestMesh = MeshMachine.TestCase
TestMesh.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
