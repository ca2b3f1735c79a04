"""Clients roam between three nodes in trouble: nothing missed, nothing twice, in order, or a gap is reported.

By hand for longer, or again with the seed that a failed run printed:

    APHLICT_CHAOS_SECONDS=120 APHLICT_CHAOS_SEED=1 bin/test tests/faults/test_resume_chaos.py
"""

import asyncio
import contextlib
import logging
import os
import random
import secrets
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.chaos_report import Report
from tests.faults.delivery_check import Check, Record
from tests.faults.mesh import Mesh, MeshNode, running_mesh
from tests.faults.publishing import Publisher
from tests.faults.roaming import Client, Mode, make_clients
from tests.faults.trouble import Trouble
from tests.support.waiting import eventually, eventually_async

log = logging.getLogger(__name__)

SECONDS = float(os.environ.get("APHLICT_CHAOS_SECONDS", "30"))
IS_STRICT = bool(os.environ.get("APHLICT_CHAOS_STRICT"))
CLIENTS = 78
PUBLISHERS = 6
INTERVAL = 0.06  # seconds between two messages of a publisher
INSTANCES = ("default", "other")
CHANNELS = ("a", "b", "c")
LAST_ROUND = 5  # messages of each publisher at each node
COMPLETE_TIMEOUT = 45.0  # seconds: nodes look every 15 s for what others lack, and wait for 30 s
MOVE_TIMEOUT = 20.0
MIN_RECOVERED = 0.5  # of all resumes with a token, in trouble
MAX_DESCRIPTORS = 4  # more than before
MAX_GROWTH = 64 * 2**20  # bytes of one process

pytestmark = pytest.mark.timeout(SECONDS + 150)


class Chaos:
    """The mesh, who uses it, and what they saw."""

    def __init__(self, mesh: Mesh, seed: int) -> None:
        rng = random.Random(seed)
        self.mesh = mesh
        self.check = Check(mesh, is_strict=IS_STRICT)
        self.trouble = Trouble(mesh, random.Random(rng.random()))
        self.records = [
            Record("", INSTANCES[number % 2], rng.sample(CHANNELS, rng.choice((1, 1, 2))))
            for number in range(CLIENTS)
        ]
        self.clients = make_clients(mesh, self.records, rng)
        self.publishers = [
            Publisher(mesh, self.check, number, INSTANCES[number % 2], CHANNELS, random.Random(rng.random()))
            for number in range(PUBLISHERS)
        ]

    def outcomes(self, clients: Iterable[Client]) -> Counter[str]:
        """How often their resumes said what."""
        return sum((client.outcomes for client in clients), Counter())

    async def run(self, seconds: float) -> None:
        """Publish while there is trouble."""
        for client in self.clients:
            client.start()
        await eventually(lambda: all(client.has_position for client in self.clients), "a position for each")
        publishing = [asyncio.create_task(publisher.run(INTERVAL)) for publisher in self.publishers]
        try:
            await self.trouble.run(seconds)
        finally:
            for publisher in self.publishers:
                publisher.stop()
            await asyncio.gather(*publishing)
        log.info("publishers have stopped")
        await self.mesh.settle()
        log.info("the nodes reach each other")

    async def calm_down(self) -> bool:
        """Wait until every client has everything, each wherever it is; return whether that happens."""
        for client in self.clients:
            client.is_settled = True
        is_complete = await self._is_complete(COMPLETE_TIMEOUT)
        log.info("clients have everything: %s", is_complete)
        return is_complete

    async def move_all(self, distance: int) -> None:
        """Let each client go to another node, and wait until it is there; then publish at all nodes."""
        count = len(self.mesh.nodes)
        goals = [self.mesh.nodes[(number + distance) % count] for number in range(len(self.clients))]
        for client, node in zip(self.clients, goals, strict=True):
            client.move(node)
        await eventually(
            lambda: all(client.node is node for client, node in zip(self.clients, goals, strict=True)),
            "all clients to arrive",
            MOVE_TIMEOUT,
        )
        for publisher in self.publishers:
            for node in self.mesh.nodes:
                for _ in range(LAST_ROUND):
                    await publisher.publish(node)
        await self._is_complete(MOVE_TIMEOUT)

    async def stop(self) -> None:
        """Disconnect all clients."""
        await asyncio.gather(*(client.stop() for client in self.clients))
        await asyncio.sleep(0)  # asyncio closes sockets in its next turn

    async def _is_complete(self, timeout: float) -> bool:
        """Whether every client receives everything in time. If not, the report has the cause."""
        with contextlib.suppress(AssertionError):
            await eventually(lambda: not any(map(self.check.missing, self.records)), timeout=timeout)
            return True
        return False


async def check_delivery(chaos: Chaos, folder: Path) -> None:
    """Trouble, then calm."""
    with_token = [client for client in chaos.clients if client.mode is not Mode.NAMES]
    await chaos.run(SECONDS)
    outcomes = chaos.outcomes(with_token)
    if await chaos.calm_down():
        await chaos.move_all(1)
        await chaos.mesh.compare()
        for client in chaos.clients:
            client.is_calm = True
        await chaos.move_all(2)
    found = [each for record in chaos.records for each in chaos.check.violations(record)]
    violations = sorted(found, key=lambda each: each.at)
    reporter = Report(chaos.check, chaos.records, chaos.trouble.log)
    report = reporter.describe(violations)
    if violations:
        reporter.write(folder)
        pytest.fail(f"{report}\nall histories: {folder}", pytrace=False)
    print(f"resumes with a token: {dict(outcomes)}, later {dict(chaos.outcomes(with_token))}\n{report}")
    assert outcomes["recovered"] > MIN_RECOVERED * outcomes.total()


async def check_resources(node: MeshNode, descriptors: int, resident: int) -> None:
    """Memory and descriptors are what they were, as soon as the clients are gone."""

    async def is_empty() -> bool:
        status: dict[str, Any] = await node.status()
        return status.get("connections") == 0 and status["deliveries.waiting"] == 0

    await eventually_async(is_empty, f"node {node.name} to be without clients", 20)
    with contextlib.suppress(AssertionError):
        await eventually(lambda: node.descriptors() <= descriptors + MAX_DESCRIPTORS)
    assert node.descriptors() <= descriptors + MAX_DESCRIPTORS
    assert node.resident() < resident + MAX_GROWTH


async def test_resumes_are_exact_in_any_trouble(tmp_path: Path) -> None:
    seed = int(os.environ.get("APHLICT_CHAOS_SEED") or secrets.randbelow(2**32))
    print(f"APHLICT_CHAOS_SEED={seed} APHLICT_CHAOS_SECONDS={SECONDS:g}")
    async with running_mesh(tmp_path) as mesh:
        resources = [(node.descriptors(), node.resident()) for node in mesh.nodes]
        chaos = Chaos(mesh, seed)
        try:
            await check_delivery(chaos, tmp_path)
        finally:
            await chaos.stop()
        for node, before in zip(mesh.nodes, resources, strict=True):
            await check_resources(node, *before)
