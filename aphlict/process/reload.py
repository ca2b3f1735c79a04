"""Reloading: which changes of the configuration apply without a restart, and applying them in all workers."""

import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from msgspec import structs

from aphlict import log_events
from aphlict.config import loader
from aphlict.config.files import FileReader
from aphlict.config.rules import PEER_FILES, SERVER_FILES
from aphlict.config.settings import PeerSettings, ServerSettings, Settings
from aphlict.errors import ReloadRejected
from aphlict.process.bootstrap import StartupContext, load, log_files
from aphlict.process.channel import Commit, Committed, Discard, Prepare, Prepared, Snapshot
from aphlict.process.logs import open_all
from aphlict.process.worker_process import WorkerProcess

log = logging.getLogger(__name__)

RELOAD_TIMEOUT = 10.0  # seconds that workers have to prepare, and again to apply
RESTART_REQUIRED = ("pidfile", "user", "group", "workers")

# Settings of a server that belong together; a server has a group if it has the first one of it.
GROUPS = (
    ("ssl_key", "ssl_cert", "ssl_chain"),
    ("ssl_ca",),
    ("admin_secret", "admin_secret_file"),
    ("metrics_secret",),
    ("admin_hosts",),
    ("auth_keys", "auth_audience"),
    ("origins",),
    ("proxy_protocol",),
    ("proxy_trusted",),
)

Identity = tuple[str, str, int]


def reload_settings(
    config: Path, current: Settings, files: FileReader, earlier: FileReader
) -> tuple[Settings, list[str]]:
    """Read the settings to apply, and the keys whose change requires a restart.

    `files` reads the files that they name; a file that is no longer named, but still in use, is taken from `earlier`.
    Raises ConfigError if the configuration is invalid.
    """
    settings, waiting = merge(loader.load(config, read=files.read), current)
    files.adopt(earlier, _paths(settings))
    return settings, waiting


def merge(new: Settings, current: Settings) -> tuple[Settings, list[str]]:
    """The new settings, as far as they can apply to the current ports, peers and processes; and the keys whose change
    requires a restart. The servers keep their current order.
    """
    servers, waiting = _merge_servers(new.servers, current.servers)
    cluster = {_peer_identity(peer): peer for peer in new.cluster}
    if cluster.keys() != {_peer_identity(peer) for peer in current.cluster}:
        waiting.append("cluster")
    fixed = [key for key in RESTART_REQUIRED if getattr(new, key) != getattr(current, key)]
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
    present = {_identity(server): server for server in new}
    removed = [server for server in current if _identity(server) not in present]
    added = [index for index, server in enumerate(new) if _identity(server) not in map(_identity, current)]
    merged = {_identity(server): present.get(_identity(server), server) for server in current}
    waiting: list[str] = []
    for server in removed:
        moved_to = next((index for index in added if new[index].type == server.type), None)
        if moved_to is None:
            waiting.append(f"servers ({server.type} {server.address}:{server.port}, removed)")
            continue
        added.remove(moved_to)
        merged[_identity(server)], keys = _merge_moved(new[moved_to], server)
        waiting += (f"servers[{moved_to}].{key}" for key in keys)
    waiting += (f"servers[{index}] (new)" for index in added)
    return tuple(merged[_identity(server)] for server in current), waiting


def _merge_moved(new: ServerSettings, current: ServerSettings) -> tuple[ServerSettings, list[str]]:
    """A server whose port or address has changed. It stays on its current port with the new keys and certificates.
    A group of settings that is added or removed requires a restart: it may be meant for one of the two ports only.
    """
    changes: dict[str, object] = {}
    waiting = [key for key in ("port", "listen") if getattr(new, key) != getattr(current, key)]
    for names in GROUPS:
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


class Reload:
    """One reload, in two phases: all workers prepare it, then all apply it.

    `on_response`, `on_exit` and `on_time` advance it until it `is_complete`; `discard` cancels it.
    """

    def __init__(self, number: int, context: StartupContext, workers: Iterable[WorkerProcess]) -> None:
        """Read configuration and files, and have the workers prepare them.

        Raises AphlictError or OSError if they cannot be used; then nothing has changed.
        """
        files = FileReader()
        settings, self._waiting = reload_settings(context.config, context.settings, files, context.files)
        self._loaded = load(settings, files)
        self._log_files = log_files(settings)
        open_all(self._log_files)
        self._context = context
        self._number = number
        self._workers = [
            worker for worker in workers if worker.channel.is_open
        ]  # the others have just exited
        self._pending = list(self._workers)  # those that have not responded
        self.is_committed = False
        self.deadline: float | None = time.monotonic() + RELOAD_TIMEOUT  # monotonic seconds
        try:
            self._send_snapshot(Snapshot(settings, files.contents))
        except OSError:
            self.discard()
            raise
        self._advance()

    @property
    def is_complete(self) -> bool:
        """Whether every worker has applied it."""
        return self.is_committed and not self._pending

    def _send_snapshot(self, snapshot: Snapshot) -> None:
        descriptor = snapshot.write()
        try:
            for worker in self._workers:
                with contextlib.suppress(ConnectionError):  # it has just exited: `on_exit` follows
                    worker.channel.send(Prepare(self._number), descriptor)
        finally:
            os.close(descriptor)

    def on_response(self, worker: WorkerProcess, response: Prepared | Committed) -> None:
        """Raises ReloadRejected if a worker cannot apply the reload; then nothing has changed."""
        if response.number != self._number or worker not in self._pending:
            return  # it belongs to a reload that was cancelled
        if isinstance(response, Prepared) and response.error is not None:
            raise ReloadRejected(f"{worker.name} {worker.pid}: {response.error}")
        self._pending.remove(worker)
        self._advance()

    def on_exit(self, worker: WorkerProcess) -> None:
        """A worker has exited. Its successor starts with the configuration that is current then."""
        for workers in (self._workers, self._pending):
            if worker in workers:
                workers.remove(worker)
        self._advance()

    def on_time(self, now: float) -> None:
        """Raises ReloadRejected if a worker has not prepared the reload in time; then nothing has changed."""
        if self.deadline is None or now < self.deadline:
            return
        self.deadline = None
        names = ", ".join(f"{worker.name} {worker.pid}" for worker in self._pending)
        if not self.is_committed:
            raise ReloadRejected(f"{names} did not respond within {RELOAD_TIMEOUT:g} s")
        log.error(log_events.RELOAD_LATE, names, RELOAD_TIMEOUT)
        self._pending = []

    def _advance(self) -> None:
        if self._pending or self.is_committed:
            return
        self.is_committed = True
        self.deadline = time.monotonic() + RELOAD_TIMEOUT
        self._pending = list(self._workers)
        self._context.apply(self._loaded, self._log_files)
        for key in self._waiting:
            log.warning(log_events.RESTART_NEEDED, key, self._context.config)
        self._send(Commit(self._number))

    def discard(self) -> None:
        """Cancel it before it is committed."""
        for file in self._log_files:
            file.close()
        self._send(Discard(self._number))

    def _send(self, message: Commit | Discard) -> None:
        for worker in self._workers:
            with contextlib.suppress(OSError):  # it has just exited, or hangs
                worker.channel.send(message)
