"""Clients that move from node to node and resume, as pages do whose connections break."""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from enum import Enum
from typing import Any

from tests.faults.delivery_check import Kind, Record
from tests.faults.links import HOST
from tests.faults.mesh import Mesh, MeshNode
from tests.faults.sessions import EventStreamSession, PollSession, Session, WebSocketSession

MAX_NAMED = 14  # as in `aphlict.js`
MAX_EARLY = 16  # messages that a token names since the node had not received them
MAX_ONLY_NAMES = 16  # as many as a server considers
CONNECT_TIMEOUT = 2.0  # seconds
LEAVE_TIMEOUT = 1.0  # seconds for a last token
READY_TIMEOUTS = 1.5, 5.0  # seconds, from and to: a node may be stopped
STAYS = 0.1, 3.0  # seconds
LONG_STAYS = 15.0, 60.0  # seconds
MAX_GAPS = 10  # in one session: a node that has just started learns of others bit by bit
RETRY_DELAYS = 0.02, 0.3  # seconds
SHOWN = 200  # characters of a token


class Mode(Enum):
    """What a client resumes with."""

    TOKEN = "token"  # and the names of what came after it
    BOTH = "names and token"  # as `aphlict.js`
    NAMES = "names"


class Client:
    """Roams until `stop`, or until it `is_settled`: then it moves when it is told to."""

    def __init__(
        self, mesh: Mesh, record: Record, kind: type[Session], mode: Mode, rng: random.Random
    ) -> None:
        self.record = record
        self.mode = mode
        self.instance = record.instance
        self.channels = tuple(sorted(record.channels))
        self.uncovered: list[str] = []
        self.token: str | None = None
        self.outcomes: Counter[str] = Counter()
        self.node: MeshNode | None = None  # where it is ready
        self.is_settled = False
        self.is_calm = False  # no gap is expected any more
        self._is_stopped = False
        self._gaps = 0  # in this session
        self._is_patient = rng.random() < 0.15
        self._names: deque[str] = deque(maxlen=MAX_ONLY_NAMES)
        self._mesh = mesh
        self._kind = kind
        self._rng = rng
        self._current = mesh.nodes[0]  # of the session
        self._session: Session | None = None
        self._next: MeshNode | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def has_position(self) -> bool:
        """Whether it can resume."""
        return self.token is not None

    def start(self) -> None:
        """Begin to roam."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the connection."""
        self._is_stopped = True
        if self._session is not None:
            self._session.end("stopped")
        if self._task is not None:
            await self._task

    def move(self, node: MeshNode) -> None:
        """Go to this node now."""
        self._next = node
        self.node = None
        if self._session is not None:
            self._session.leave()

    # What a session reports

    def on_start(self) -> None:
        """The first position is known."""
        self.note("start")
        self.record.begin(time.monotonic())

    def on_gap(self) -> None:
        """Messages may be missing: what the page shows is loaded again."""
        self.note("GAP")
        self._gaps += 1
        if not self.ready:
            self.outcomes["gap"] += 1
        is_repeated = self.ready and self._gaps > MAX_GAPS
        if is_repeated or (self.is_calm and self.mode is not Mode.NAMES):
            self.record.fail(time.monotonic(), Kind.NEEDLESS, "", f"gap at {self._current.name}")
        self._names.clear()
        self.uncovered.clear()
        self.record.begin(time.monotonic())

    def on_recovered(self) -> None:
        """Nothing is missing."""
        if not self.ready:
            self.note("recovered")
            self.outcomes["recovered"] += 1
        self.record.recover(time.monotonic())

    def on_message(self, message: dict[str, Any]) -> None:
        """A message."""
        name = message["uniqueID"]
        where = message["subscribers"]
        self.record.receive(time.monotonic(), self._current.name, name, message["instance"], where)
        self._names.append(name)
        self.uncovered.append(name)

    def on_token(self, token: str) -> None:
        """Everything that came is covered."""
        if self._kind is not EventStreamSession:
            self.note(f"token {token[:SHOWN]}")
        self.token = token
        self.uncovered.clear()

    def on_failure(self, what: str) -> None:
        """A node rejects what this client sends."""
        self.record.fail(time.monotonic(), Kind.REJECTED, "", f"error at {self._current.name}: {what}")

    # Roaming

    @property
    def ready(self) -> bool:
        """Whether the session has what was missed."""
        return self._session is not None and self._session.ready.done()

    def note(self, what: str) -> None:
        """Add to the history."""
        self.record.note(time.monotonic(), self._current.name, what)

    async def _run(self) -> None:
        while not self._is_stopped:
            self._current = self._next or self._rng.choice(self._mesh.nodes)
            after = self._after()
            self.record.resumed_at = time.monotonic()
            self._gaps = 0
            session = self._kind(self, after)
            self.note(f"resume after {_shown(after)}" if after else "connect")
            self._session = session
            try:
                await asyncio.wait_for(_connect(session, self._current), CONNECT_TIMEOUT)
            except (OSError, asyncio.TimeoutError) as error:
                self.note(type(error).__name__)
            else:
                await self._stay(session)
            await asyncio.sleep(self._rng.uniform(*RETRY_DELAYS))

    async def _stay(self, session: Session) -> None:
        done: list[asyncio.Future[Any]] = [session.ready, session.ended]
        await asyncio.wait(
            done, timeout=self._rng.uniform(*READY_TIMEOUTS), return_when=asyncio.FIRST_COMPLETED
        )
        if session.ready.done() and not session.ended.done():
            self.node = self._current
            await self._wait_until_end_of_stay(session)
            self.node = None
        session.end("abandoned")
        self.note(session.ended.result())

    async def _wait_until_end_of_stay(self, session: Session) -> None:
        while self.is_settled and not session.ended.done():
            await asyncio.wait([session.ended])
        await asyncio.wait(
            [session.ended], timeout=self._rng.uniform(*(LONG_STAYS if self._is_patient else STAYS))
        )
        if not session.ended.done() and self._rng.random() < 0.5:
            session.leave()
            await asyncio.wait([session.ended], timeout=LEAVE_TIMEOUT)

    def _after(self) -> list[str]:
        """What to resume after, and what may come again since it cannot be named."""
        if self.token is None:
            return []
        if self.mode is Mode.NAMES and self._names:
            self.record.repeatable = set(self.record.epochs[-1].arrivals).difference(self._names)
            return list(self._names)
        named = self.uncovered if self.mode is Mode.TOKEN else list(self._names)
        named = named[-MAX_NAMED:]
        is_full = len(named) + self.token.count("~", 1) > MAX_EARLY
        had = self.record.epochs[-1].arrivals if is_full else self.uncovered
        self.record.repeatable = set(had).difference(named)
        return [*named, self.token]


async def _connect(session: Session, node: MeshNode) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: session, HOST, node.installation.client_port)


def _shown(after: Sequence[str]) -> str:
    return " ".join(each[:SHOWN] for each in after)


def make_clients(mesh: Mesh, records: Sequence[Record], rng: random.Random) -> list[Client]:
    """A client for each record, of all kinds and modes."""
    kinds = (WebSocketSession, EventStreamSession, PollSession)
    modes = {
        WebSocketSession: (Mode.TOKEN, Mode.BOTH, Mode.TOKEN, Mode.BOTH, Mode.NAMES),
        EventStreamSession: (Mode.TOKEN,),
        PollSession: (Mode.TOKEN, Mode.TOKEN, Mode.BOTH),
    }
    clients = []
    for number, record in enumerate(records):
        kind = kinds[number % len(kinds)]
        choice = modes[kind]
        mode = choice[number // len(kinds) % len(choice)]
        record.client = f"{kind.__name__} {number} ({mode.value})"
        clients.append(Client(mesh, record, kind, mode, random.Random(rng.random())))
    return clients
