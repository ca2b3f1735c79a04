"""Publishers of numbered messages: each message to one node, and to another if that one does not acknowledge it."""

import asyncio
import json
import random
import time
from collections.abc import Sequence

from tests.faults.delivery_check import Check, Publication, Sender
from tests.faults.mesh import Mesh, MeshNode, request

POST_TIMEOUT = 1.5  # seconds
MAX_ATTEMPTS = 8
LOYALTY = 0.8  # the chance that the next message goes to the same node


class Publisher:
    """Publishes one message after the other; what is sent again has the same uniqueID."""

    def __init__(
        self,
        mesh: Mesh,
        check: Check,
        number: int,
        instance: str,
        channels: Sequence[str],
        rng: random.Random,
    ) -> None:
        self._mesh = mesh
        self._check = check
        self._number = number
        self._instance = instance
        self._channels = channels
        self._rng = rng
        self._count = 0
        self._is_stopped = False
        self._node = rng.choice(mesh.nodes)

    async def run(self, interval: float) -> None:
        """Publish every `interval` seconds on average, until `stop`."""
        while not self._is_stopped:
            if self._rng.random() > LOYALTY:
                self._node = self._rng.choice(self._mesh.nodes)
            await self.publish(self._node)
            await asyncio.sleep(self._rng.expovariate(1 / interval))

    def stop(self) -> None:
        """Let `run` return."""
        self._is_stopped = True

    async def publish(self, node: MeshNode) -> None:
        """Publish a message on one or two channels, at this node first."""
        self._count += 1
        channels = self._rng.sample(self._channels, self._rng.choice((1, 1, 1, 2)))
        name = f"p{self._number}-{self._count}"
        publication = Publication(name, self._instance, frozenset(channels), self._count, time.monotonic())
        self._check.published[name] = publication
        life = node.life
        while publication.attempts < MAX_ATTEMPTS:
            publication.attempts += 1
            if await self._post(publication, node):
                if publication.attempts == 1 and life == node.life:
                    publication.sender = Sender(self._number, node.number, life)
                return
            node = self._rng.choice(self._mesh.nodes)
            await asyncio.sleep(self._rng.uniform(0, 0.2))

    async def _post(self, publication: Publication, node: MeshNode) -> bool:
        """Return whether it was acknowledged."""
        content = {
            "uniqueID": publication.name,
            "instance": self._instance,
            "subscribers": sorted(publication.channels),
        }
        memory = node.memory
        try:
            head = f"POST /?instance={self._instance}"
            port = node.installation.admin_port
            status, _ = await request(port, head, json.dumps(content).encode(), POST_TIMEOUT)
        except OSError:
            return False
        if status == 200:
            publication.receipts.append((node, memory, time.monotonic()))
        return status == 200
