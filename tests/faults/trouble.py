"""Faults of nodes and of links, one after the other, in an order that a seed determines."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from tests.faults.links import Link
from tests.faults.mesh import NAMES, Mesh, MeshNode

log = logging.getLogger(__name__)

MAX_DELAY, MIN_DELAY = 4.0, 0.5  # seconds
FREEZE = 0.3, 3.0  # seconds, from and to
DOWN = 0.0, 2.0
PAUSE = 0.2, 1.5
LINK_FAULT = 1.0, 5.0
HOLD = 0.5, 4.5
LINK_PAUSE = 0.5, 3.0


class Trouble:
    """Two lists of faults at the same time: of nodes, and of links. `log` has the time and what was done."""

    def __init__(self, mesh: Mesh, rng: random.Random) -> None:
        self.log: list[tuple[float, str]] = []
        self._mesh = mesh
        self._rng = rng
        self._is_over = False
        self._node_faults: Sequence[tuple[str, Callable[[MeshNode], Awaitable[None]]]] = (
            ("kill -9 of the hub", MeshNode.kill_hub),
            ("kill -9 of an edge", self._kill_edge),
            ("stop and start", self._restart),
            ("kill -9 of all, start", self._kill),
            ("SIGSTOP of the hub", self._freeze_hub),
            ("SIGSTOP of all", self._freeze_all),
            ("SIGHUP", MeshNode.reload),
        )

    async def run(self, seconds: float) -> None:
        """Cause faults for so long; the last one is completed."""
        lanes = [asyncio.create_task(each) for each in (self._trouble_nodes(), self._trouble_links())]
        await asyncio.wait(lanes, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        self._is_over = True
        await asyncio.gather(*lanes)

    def _note(self, what: str) -> None:
        log.info(what)
        self.log.append((time.monotonic(), what))

    async def _trouble_nodes(self) -> None:
        while not self._is_over:
            for name, fault in self._rng.sample(self._node_faults, len(self._node_faults)):
                node = self._rng.choice(self._mesh.nodes)
                await self._pause(PAUSE)
                if not self._is_over:
                    self._note(f"{name} at {node.name}")
                    await fault(node)
                    self._note(f"{name} at {node.name}: over")

    async def _trouble_links(self) -> None:
        faults = (self._slow, self._slow, self._slow_responses, self._hold, self._cut)
        while not self._is_over:
            for fault in self._rng.sample(faults, len(faults)):
                await self._pause(LINK_PAUSE)
                if not self._is_over:
                    await self._trouble_some(fault)

    async def _trouble_some(self, fault: Callable[[Link], tuple[str, float]]) -> None:
        """One link, or all to or from one node."""
        number = self._rng.randrange(len(self._mesh.nodes))
        place = self._rng.choice((0, 1))
        around = [ends for ends in self._mesh.links if ends[place] == number]
        chosen = around if self._rng.random() < 0.4 else [self._rng.choice(around)]
        for sender, receiver in chosen:
            what, seconds = fault(self._mesh.links[sender, receiver])
            self._note(f"link {NAMES[sender]}-{NAMES[receiver]} {what} for {seconds:.1f} s")
        await asyncio.sleep(seconds)
        for ends in chosen:
            self._mesh.links[ends].heal()
        self._note("links healed")

    async def _pause(self, span: tuple[float, float]) -> None:
        await asyncio.sleep(self._rng.uniform(*span))

    # Nodes

    async def _kill_edge(self, _node: MeshNode) -> None:
        await next(node for node in self._mesh.nodes if node.workers > 1).kill_edge()

    async def _restart(self, node: MeshNode) -> None:
        await node.stop()
        await self._pause(DOWN)
        await node.start()

    async def _kill(self, node: MeshNode) -> None:
        await node.kill()
        await self._pause(DOWN)
        await node.start()

    async def _freeze_hub(self, node: MeshNode) -> None:
        await node.freeze(self._rng.uniform(*FREEZE), whole=False)

    async def _freeze_all(self, node: MeshNode) -> None:
        await node.freeze(self._rng.uniform(*FREEZE), whole=True)

    # Links

    def _slow(self, link: Link) -> tuple[str, float]:
        link.delay = self._rng.uniform(MIN_DELAY, MAX_DELAY)
        return f"slow by {link.delay:.1f} s", self._rng.uniform(*LINK_FAULT)

    def _slow_responses(self, link: Link) -> tuple[str, float]:
        link.response_delay = self._rng.uniform(MIN_DELAY, MAX_DELAY)
        return f"with slow responses by {link.response_delay:.1f} s", self._rng.uniform(*LINK_FAULT)

    def _hold(self, link: Link) -> tuple[str, float]:
        link.hold()
        return "held", self._rng.uniform(*HOLD)

    def _cut(self, link: Link) -> tuple[str, float]:
        link.cut()
        return "cut", self._rng.uniform(*LINK_FAULT)
