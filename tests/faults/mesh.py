"""Three nodes as processes, each linked to each other by a relay of its own; and what can be done to them."""

import asyncio
import contextlib
import json
import math
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.faults.links import HOST, Link
from tests.support.installation import Installation, installed
from tests.support.waiting import eventually_async

WORKERS = (1, 2, 1)  # of the nodes A, B and C
NAMES = "ABC"
AS_NODE = "X-Aphlict-Node: observer00000000\r\nX-Aphlict-Origin: observer 0 0.0\r\n"
REPAIR_TIMEOUT = 60.0  # seconds: nodes compare what they have every 15 s
READY_TIMEOUT = 30.0  # seconds
MAX_RESPONSE = 1 << 20


async def request(
    port: int, head: str, body: bytes = b"", timeout: float = 2.0, fields: str = ""
) -> tuple[int, Any]:
    """Send an HTTP request; return status and JSON of the response. Raises OSError, also if it takes too long."""
    try:
        return await asyncio.wait_for(_request(port, head, body, fields), timeout)
    except (asyncio.TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
        raise ConnectionError(repr(error)) from error


async def _request(port: int, head: str, body: bytes, more: str) -> tuple[int, Any]:
    reader, writer = await asyncio.open_connection(HOST, port, limit=MAX_RESPONSE)
    try:
        fields = f"Host: localhost\r\n{more}Content-Length: {len(body)}\r\nConnection: close"
        writer.write(f"{head} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body)
        response = await reader.read(-1)
    finally:
        writer.transport.abort()
    head_bytes, _, content = response.partition(b"\r\n\r\n")
    if not head_bytes:
        raise ConnectionError("no response")
    return int(head_bytes.split(b" ", 2)[1]), json.loads(content)


class MeshNode:
    """One node. `life` counts the processes that number its messages; `memory` those whose end loses its history."""

    def __init__(self, number: int, installation: Installation, links: list[Link]) -> None:
        self.name = NAMES[number]
        self.number = number
        self.workers = WORKERS[number]
        self.installation = installation
        self.links = links  # to the others
        self.life = 0
        self.memory = 0
        self._ends: list[
            tuple[float, bool]
        ] = []  # of memories: when, and whether it could pass on what it had

    async def status(self, fields: str = "") -> dict[str, Any]:
        """Its status; empty if it does not respond. `fields`: of the head."""
        with contextlib.suppress(OSError):
            code, status = await request(self.installation.admin_port, "GET /status/", fields=fields)
            if code == 200 and isinstance(status, dict):
                return status
        return {}

    async def is_ready(self) -> bool:
        """Whether all its processes run."""
        status = await self.status()
        return bool(status.get("state") == "RUNNING" and len(status["workers"]) == self.workers)

    async def is_meshed(self) -> bool:
        """Whether it is ready, reaches the others, and has nothing queued for them."""
        peers = (await self.status()).get("peers") or [{"state": "unknown"}]
        return await self.is_ready() and all(each["state"] == "up" and not each["queued"] for each in peers)

    async def wait_until_ready(self) -> None:
        """Wait for `is_ready`."""
        await eventually_async(self.is_ready, f"node {self.name} that is ready", READY_TIMEOUT)

    async def start(self) -> None:
        """Start it, with a new memory."""
        done = await asyncio.to_thread(self.installation.run, "start")
        assert done.returncode == 0, done
        await self.wait_until_ready()

    async def stop(self) -> None:
        """Stop it with the command. What it has not passed on may be lost if it could not."""
        is_healthy = all(link.is_healthy for link in self.links)
        done = await asyncio.to_thread(self.installation.run, "stop")
        assert done.returncode == 0, done
        self._end(is_lost=not is_healthy)

    async def kill(self) -> None:
        """Kill all its processes."""
        await asyncio.to_thread(self.installation.kill)
        self._end(is_lost=True)

    async def kill_hub(self) -> None:
        """Kill the process that accepts messages. Alone, it loses them; edges would still have them."""
        victim = await self.hub()
        self.life += 1
        if self.workers == 1:
            self._end(is_lost=True)
        victim.kill()
        await eventually_async(lambda: self._has_another_hub(victim.pid), "another hub", READY_TIMEOUT)
        await self.wait_until_ready()

    async def kill_edge(self) -> None:
        """Kill a process that serves clients only."""
        status = await self.status()
        pids = [each["pid"] for each in status["workers"]]
        psutil.Process(pids[0]).kill()
        await eventually_async(lambda: self._is_without(pids[0]), "the hub to notice", READY_TIMEOUT)
        await self.wait_until_ready()

    async def freeze(self, seconds: float, *, whole: bool) -> None:
        """Stop the hub, or all its processes, for so long, and let them go on."""
        processes = self.processes() if whole else [await self.hub()]
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        for process in processes:
            process.send_signal(signal.SIGCONT)
        await self.wait_until_ready()

    async def reload(self) -> None:
        """Let it read its configuration again."""
        self.installation.supervisor().send_signal(signal.SIGHUP)
        await self.wait_until_ready()

    def lost_at(self, memory: int) -> float:
        """When a memory ended without having to pass on what it had (monotonic seconds)."""
        at, is_lost = self._ends[memory] if memory < len(self._ends) else (math.inf, False)
        return at if is_lost else math.inf

    def end_after(self, time: float) -> float:
        """When the memory ended that the node had at this time."""
        return next((at for at, _ in self._ends if at > time), math.inf)

    async def hub(self) -> psutil.Process:
        """The process that accepts messages."""
        await self.wait_until_ready()
        return psutil.Process((await self.status())["pid"])

    def processes(self) -> list[psutil.Process]:
        """All its processes but the supervisor."""
        return self.installation.supervisor().children()

    def descriptors(self) -> int:
        """The open descriptors of all its processes together."""
        return sum(process.num_fds() for process in self.processes())

    def resident(self) -> int:
        """The resident bytes of its largest process."""
        return max(int(process.memory_info().rss) for process in self.processes())

    async def _has_another_hub(self, pid: int) -> bool:
        return bool((await self.status()).get("pid", pid) != pid)

    async def _is_without(self, pid: int) -> bool:
        return pid not in [each["pid"] for each in (await self.status()).get("workers", [{"pid": pid}])]

    def _end(self, *, is_lost: bool) -> None:
        self._ends.append((time.monotonic(), is_lost))
        self.memory += 1
        self.life += 1


class Mesh:
    """Three nodes; `links[1, 0]` is what B sends to A."""

    def __init__(self, nodes: list[MeshNode], links: dict[tuple[int, int], Link]) -> None:
        self.nodes = nodes
        self.links = links

    async def settle(self) -> None:
        """Make all links fast, and wait until all nodes reach each other."""
        for link in self.links.values():
            link.heal()
        for node in self.nodes:
            await eventually_async(node.is_meshed, f"node {node.name} that reaches the others", READY_TIMEOUT)

    async def compare(self) -> None:
        """Wait until all nodes have the same messages of each node, those that have ended included: one may have what
        another one has not missed yet."""
        await eventually_async(self._have_the_same, "nodes with the same messages", REPAIR_TIMEOUT)

    async def _have_the_same(self) -> bool:
        numbers = defaultdict[str, set[int]](set)
        for node in self.nodes:
            for origin, (number, *_) in (await node.status(AS_NODE)).get("origins", {"": (-1,)}).items():
                numbers[origin].add(number)
        return all(len(each) == 1 and min(each) >= 0 for each in numbers.values())


@asynccontextmanager
async def running_mesh(folder: Path) -> AsyncIterator[Mesh]:
    """Run three nodes."""
    with ExitStack() as stack:
        count = len(WORKERS)
        homes = [stack.enter_context(installed(folder / name)) for name in NAMES[:count]]
        links = {
            (sender, receiver): Link(homes[receiver].admin_port)
            for sender in range(count)
            for receiver in range(count)
            if sender != receiver
        }
        for link in links.values():
            await link.start()
        nodes = []
        for number, home in enumerate(homes):
            mine = [link for (sender, _), link in links.items() if sender == number]
            peers = [{"host": HOST, "port": link.port} for link in mine]
            home.write(workers=WORKERS[number], cluster=peers)
            nodes.append(MeshNode(number, home, mine))
        mesh = Mesh(nodes, links)
        try:
            await asyncio.gather(*(node.start() for node in nodes))
            await mesh.settle()
            yield mesh
        finally:
            await asyncio.gather(*(link.close() for link in links.values()))
