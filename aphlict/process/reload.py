"""Reading the configuration again while the server runs: which of it applies now, and what waits for a restart."""

import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from msgspec import structs

from aphlict.config import loader
from aphlict.config.files import FileReader
from aphlict.config.rules import PEER_FILES, SERVER_FILES
from aphlict.config.settings import PeerSettings, ServerSettings, Settings
from aphlict.errors import ReloadRejected
from aphlict.process.bootstrap import Launch, load, log_files
from aphlict.process.channel import Commit, Committed, Discard, Prepare, Prepared, Snapshot
from aphlict.process.logs import open_all
from aphlict.process.worker_process import WorkerProcess

FIXED = ("pidfile", "user", "group", "workers")

# Keys of a server that make sense only together; the first one says whether the server has them.
TOGETHER = (
    ("ssl_key", "ssl_cert", "ssl_chain"),
    ("ssl_ca",),
    ("admin_secret", "admin_secret_file"),
    ("admin_hosts",),
    ("auth_keys", "auth_audience"),
    ("origins",),
    ("proxy_protocol",),
    ("proxy_trusted",),
)

Identity = tuple[str, str, int]


def read_again(
    config: Path, current: Settings, files: FileReader, earlier: FileReader
) -> tuple[Settings, list[str]]:
    """Return the settings to go on with, and the keys whose change waits for a restart.

    `files` reads the files that they name; what is no longer named, but still in use, is taken from `earlier`.
    Raises ConfigError when the file is wrong.
    """
    settings, waiting = merge(loader.load(config, read=files.read), current)
    files.adopt(earlier, _paths(settings))
    return settings, waiting


def merge(new: Settings, current: Settings) -> tuple[Settings, list[str]]:
    """The new settings, as far as they can apply to the ports, peers and processes of the current ones; and the keys
    whose change waits for a restart. The servers keep the order of the current ones.
    """
    servers, waiting = _merge_servers(new.servers, current.servers)
    cluster = {_peer_identity(peer): peer for peer in new.cluster}
    if cluster.keys() != {_peer_identity(peer) for peer in current.cluster}:
        waiting.append("cluster")
    fixed = [key for key in FIXED if getattr(new, key) != getattr(current, key)]
    merged = structs.replace(
        new,
        servers=servers,
        cluster=tuple(cluster.get(_peer_identity(peer), peer) for peer in current.cluster),
        **{key: getattr(current, key) for key in fixed},
    )
    return merged, waiting + fixed


def _merge_servers(
    new: Sequence[ServerSettings], current: Sequence[ServerSettings]
) -> tuple[tuple[ServerSettings, ...], list[str]]:
    there = {_identity(server): server for server in new}
    lost = [server for server in current if _identity(server) not in there]
    added = [index for index, server in enumerate(new) if _identity(server) not in map(_identity, current)]
    merged = {_identity(server): there.get(_identity(server), server) for server in current}
    waiting: list[str] = []
    for server in lost:
        place = next((index for index in added if new[index].type == server.type), None)
        if place is None:
            waiting.append(f"servers ({server.type} {server.address}:{server.port}, no longer there)")
            continue
        added.remove(place)
        merged[_identity(server)], keys = _merge_moved(new[place], server)
        waiting += (f"servers[{place}].{key}" for key in keys)
    waiting += (f"servers[{index}] (new)" for index in added)
    return tuple(merged[_identity(server)] for server in current), waiting


def _merge_moved(new: ServerSettings, current: ServerSettings) -> tuple[ServerSettings, list[str]]:
    """A server whose port or address has changed: on the old port, keys and certificates are replaced by those that
    follow them. What is only there before, or only after, waits: it may protect one of the two ports alone.
    """
    changes: dict[str, object] = {}
    waiting = [key for key in ("port", "listen") if getattr(new, key) != getattr(current, key)]
    for names in TOGETHER:
        before, after = (getattr(each, names[0]) for each in (current, new))
        if before and after:
            changes |= {name: getattr(new, name) for name in names}
        elif before or after:
            waiting += (_key(name) for name in names if getattr(new, name) != getattr(current, name))
    return structs.replace(current, **changes), waiting


def _key(attribute: str) -> str:
    return next(each.encode_name for each in structs.fields(ServerSettings) if each.name == attribute)


def _identity(server: ServerSettings) -> Identity:
    return server.type, server.address, server.port


def _peer_identity(peer: PeerSettings) -> Identity:
    return peer.protocol, peer.host, peer.port


def _paths(settings: Settings) -> Iterator[str]:
    """The files that the settings name."""
    for server in settings.servers:
        yield from server.auth_keys
    named = chain(
        (getattr(server, name) for server in settings.servers for name in SERVER_FILES),
        (getattr(peer, name) for peer in settings.cluster for name in PEER_FILES),
    )
    yield from (path for path in named if path is not None)


log = logging.getLogger(__name__)

TIMEOUT = 10.0  # seconds that workers have to prepare, and again to switch


class Handover:
    """One reload. `on_answer`, `on_end` and `on_time` carry it on until it `is_over`; or `discard` ends it."""

    def __init__(self, number: int, launched: Launch, workers: Iterable[WorkerProcess]) -> None:
        """Read everything again, and have the workers prepare it.

        Raises AphlictError or OSError where it cannot be used: nothing has changed.
        """
        files = FileReader()
        settings, self._waiting = read_again(launched.config, launched.settings, files, launched.files)
        self._loaded = load(settings, files)
        self._log_files = log_files(settings)
        open_all(self._log_files)
        self._launch = launched
        self._number = number
        self._workers = [worker for worker in workers if worker.channel.is_open]  # the others have just ended
        self._silent = list(self._workers)  # those that have to answer
        self.is_committed = False
        self.deadline: float | None = time.monotonic() + TIMEOUT  # monotonic seconds
        try:
            self._hand_on(Snapshot(settings, files.contents))
        except OSError:
            self.discard()
            raise
        self._advance()

    @property
    def is_over(self) -> bool:
        """Whether every worker has switched."""
        return self.is_committed and not self._silent

    def _hand_on(self, snapshot: Snapshot) -> None:
        descriptor = snapshot.write()
        try:
            for worker in self._workers:
                with contextlib.suppress(ConnectionError):  # it has just ended: `on_end` follows
                    worker.channel.send(Prepare(self._number), descriptor)
        finally:
            os.close(descriptor)

    def on_answer(self, worker: WorkerProcess, answer: Prepared | Committed) -> None:
        """Raises ReloadRejected where a worker cannot follow: nothing has changed."""
        if answer.number != self._number or worker not in self._silent:
            return  # to one that was given up
        if isinstance(answer, Prepared) and answer.refusal is not None:
            raise ReloadRejected(f"{worker.name} {worker.pid}: {answer.refusal}")
        self._silent.remove(worker)
        self._advance()

    def on_end(self, worker: WorkerProcess) -> None:
        """A worker has ended; the next one starts with what is in force then."""
        for workers in (self._workers, self._silent):
            if worker in workers:
                workers.remove(worker)
        self._advance()

    def on_time(self, now: float) -> None:
        """Raises ReloadRejected where a worker has not prepared in time: nothing has changed."""
        if self.deadline is None or now < self.deadline:
            return
        self.deadline = None
        names = ", ".join(f"{worker.name} {worker.pid}" for worker in self._silent)
        if not self.is_committed:
            raise ReloadRejected(f"{names} did not answer within {TIMEOUT:g} s")
        log.error(
            "no answer from %s within %g s: it uses the new configuration once it goes on", names, TIMEOUT
        )
        self._silent = []

    def _advance(self) -> None:
        if self._silent or self.is_committed:
            return
        self.is_committed = True
        self.deadline = time.monotonic() + TIMEOUT
        self._silent = list(self._workers)
        self._launch.use(self._loaded, self._log_files)
        for key in self._waiting:
            config = self._launch.config
            log.warning('"%s" has changed in %s: that takes effect at the next restart', key, config)
        self._tell(Commit(self._number))

    def discard(self) -> None:
        """Give up what is not committed."""
        for file in self._log_files:
            file.close()
        self._tell(Discard(self._number))

    def _tell(self, message: Commit | Discard) -> None:
        for worker in self._workers:
            with contextlib.suppress(OSError):  # it has just ended, or hangs
                worker.channel.send(message)
