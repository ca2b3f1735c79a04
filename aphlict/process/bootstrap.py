"""Everything that has to be had before a server may run: configuration, certificates, pidfile, ports, logs."""

import grp
import logging
import os
import shlex
import socket
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from aphlict.config.files import FileReader, Read, read_file
from aphlict.config.rules import BLOCKED_PORTS
from aphlict.config.settings import ServerSettings, Settings
from aphlict.errors import AddressInUse
from aphlict.process import logs, ports, privileges
from aphlict.process.pidfile import Pidfile
from aphlict.process.privileges import find_owner
from aphlict.server import pages as script
from aphlict.server.admin_access import is_loopback
from aphlict.server.auth import Credentials, load_credentials
from aphlict.tls.certificates import CertificateReport, inspect_server
from aphlict.tls.context import client_context
from aphlict.tokens.keys import read_keys

OTHERS = stat.S_IROTH | stat.S_IWOTH


def find_exposed(config: Path, settings: Settings, read: Read = read_file) -> Iterator[str]:
    """A sentence for each file with a secret that any user can read or write. Raises ConfigError.

    A file in a folder that others cannot enter is not open to them, whatever its own mode.
    """
    seen: set[str] = set()
    for key, path in _secrets(config, settings, read):
        if path not in seen and _is_exposed(path):
            yield f"{key} in {path} is open to every user of this machine: {_command(path, settings)}"
        seen.add(path)


def _secrets(config: Path, settings: Settings, read: Read) -> Iterator[tuple[str, str]]:
    """The files that hold a secret, each with the key of the configuration that it is for."""
    for index, server in enumerate(settings.servers):
        at = f"servers[{index}]"
        if server.admin_secret_file:
            yield f"{at}.admin.secret.file", server.admin_secret_file
        elif server.admin_secret:
            yield f"{at}.admin.secret", str(config)
        if server.ssl_key:
            yield f"{at}.ssl.key", server.ssl_key
        for path in server.auth_keys:
            if any(key.signer is not None for key in read_keys(f"{at}.auth.keys", path, read)):
                yield f"{at}.auth.keys", path  # it signs tokens: public keys are for everybody
    for index, peer in enumerate(settings.cluster):
        if peer.secret:
            yield f"cluster[{index}].secret", str(config)
        if peer.ssl_key:
            yield f"cluster[{index}].ssl.key", peer.ssl_key


def _is_exposed(path: str) -> bool:
    real = Path(path).resolve()
    try:
        can_enter = all(each.stat().st_mode & stat.S_IXOTH for each in real.parents)
        return can_enter and bool(real.stat().st_mode & OTHERS)
    except OSError:  # what this user cannot see, others cannot either
        return False


def _command(path: str, settings: Settings) -> str:
    """A command after which the server still can read the file, and others cannot."""
    status, owner = Path(path).stat(), find_owner(settings)
    user, group = (owner.uid, owner.gid) if owner else (os.geteuid(), os.getegid())
    name = shlex.quote(path)
    if user in (0, status.st_uid):
        return f"chmod o= {name}"
    return f"chgrp {_group_name(group)} {name} && chmod g=r,o= {name}"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds: the worker of a killed supervisor ends by itself, but not in no time
STDERR = 2


class Loaded(NamedTuple):
    """A configuration with what was made of its files, and what an operator should know of it."""

    settings: Settings
    credentials: list[Credentials]
    files: FileReader
    warnings: list[str]


@dataclass
class Launch:
    """What a supervisor runs on. `files` has read all that the settings name, for the workers to come as well."""

    config: Path
    settings: Settings
    credentials: list[Credentials]
    files: FileReader
    sockets: Sequence[Sequence[Sequence[socket.socket]]]  # for each process with browsers, for each server
    pidfile: Pidfile
    journal: logs.LogHandler
    warnings: list[str]
    undo: ExitStack = field(repr=False)

    def __enter__(self) -> "Launch":
        """Stay open for the block."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Close and release everything."""
        self.undo.close()

    def use(self, loaded: Loaded, files: Sequence[logs.LogFile]) -> None:
        """Go on with another configuration; its log files are open."""
        self.settings, self.credentials, self.files = loaded.settings, loaded.credentials, loaded.files
        self.journal.follow(files)
        for sentence in loaded.warnings:
            log.warning("%s", sentence)

    def forget(self) -> None:
        """In the process that only started the server: close the copies of what is the server's now."""
        self.pidfile.forget()
        self.journal.close()
        self.close_sockets()

    def close_sockets(self, keep: Collection[socket.socket] = ()) -> None:
        """Close this process's copies of the listening sockets: a port is closed when all its copies are."""
        for sock in _flat(self.sockets):
            if sock not in keep:
                sock.close()


def prepare(config: Path, settings: Settings, *, console: bool = False, trace: bool = False) -> Launch:
    """Get hold of everything, as root where started so; the rights are dropped when this returns.

    Raises an AphlictError, with nothing left behind, when there is something that cannot be had.
    `console` also writes the log to standard error, `trace` every event.
    """
    with ExitStack() as undo:
        files = FileReader()
        owner, own = prove_startable(settings, files.read)
        pidfile = Pidfile.acquire(Path(settings.pidfile), owner)
        undo.callback(pidfile.release)
        sockets = _bind(settings, patience=PATIENCE if pidfile.stale else 0.0)
        for sock in _flat(sockets):
            undo.callback(sock.close)
        for file in log_files(settings):
            file.prepare(owner)
        warnings = [*find_warnings(settings, files.read), *find_exposed(config, settings, files.read)]
        if pidfile.stale:
            warnings.insert(0, pidfile.stale)
        script.load()  # from a folder that the owner may not be able to read
        if owner is not None:
            privileges.drop(owner)
        sinks = [*log_files(settings), *([logs.Stream(STDERR)] if console else [])]
        journal = logs.LogHandler(sinks, count_repeats=not trace)
        undo.callback(journal.close)
        logs.install(journal, trace=trace)
        for sentence in warnings:
            log.warning("%s", sentence)
        return Launch(config, settings, own, files, sockets, pidfile, journal, warnings, undo.pop_all())


def load(settings: Settings, files: FileReader) -> Loaded:
    """Read and check every file that the settings name. Raises ConfigError."""
    own = _load_credentials(settings, files.read)
    _check_trust(settings, files.read)
    return Loaded(settings, own, files, find_warnings(settings, files.read))


def _load_credentials(settings: Settings, read: Read) -> list[Credentials]:
    """Read each server's keys and certificate, while we may. Raises ConfigError."""
    return [load_credentials(server, read) for server in settings.servers]


def prove_startable(
    settings: Settings, read: Read = read_file
) -> tuple[privileges.Owner | None, list[Credentials]]:
    """Prove all that can be proven without touching what a running server has: user, keys, certificates, trust.

    Gives the owner of the server, and each server's credentials. Raises an AphlictError.
    """
    owner = privileges.find_owner(settings)
    own = _load_credentials(settings, read)
    _check_trust(settings, read)
    return owner, own


def _check_trust(settings: Settings, read: Read) -> None:
    """Prove that whom the peers are to be trusted by can be read. Raises CertificateError."""
    for peer in settings.peers:
        if peer.protocol == "https":
            client_context(peer.ssl_ca, peer.ssl_cert, peer.ssl_key, read)


def find_warnings(settings: Settings, read: Read = read_file) -> list[str]:
    """What an operator should know of a configuration that can be served. Raises CertificateError."""
    sentences = [
        sentence for each in find_findings(settings, read) for sentence in (*each.errors, *each.warnings)
    ]
    sentences += (_describe_open(server) for server in settings.servers if _is_open(server))
    sentences += (_describe_blocked(server) for server in settings.servers if _is_blocked(server))
    if warning := privileges.find_warning(settings):
        sentences.append(warning)
    return sentences


def _is_open(server: ServerSettings) -> bool:
    """Whether other machines can reach an admin server that asks nobody who they are."""
    return server.type == "admin" and not (server.secrets or server.ssl_ca or is_loopback(server.address))


def _describe_open(server: ServerSettings) -> str:
    return (
        f"the admin server on {server.address}:{server.port} asks nobody who they are: whoever reaches it can "
        'publish to every browser; give it "admin.secret" or "ssl.ca", or let it "listen" on 127.0.0.1'
    )


def _is_blocked(server: ServerSettings) -> bool:
    """Whether browsers refuse a port that they seem meant to come to without a proxy."""
    behind_proxy = server.proxy_trusted or server.proxy_protocol or is_loopback(server.address)
    return server.type == "client" and server.port in BLOCKED_PORTS and not behind_proxy


def _describe_blocked(server: ServerSettings) -> str:
    return (
        f"the client server on {ports.name(server)} cannot be reached by browsers themselves, which refuse to "
        f"connect to port {server.port}: take another one, or put a proxy in front of it"
    )


def find_findings(settings: Settings, read: Read = read_file) -> list[CertificateReport]:
    """What there is to say of each certificate. Raises CertificateError."""
    now = datetime.now(timezone.utc)
    return [inspect_server(server, now, read) for server in settings.servers if server.tls]


def log_files(settings: Settings) -> list[logs.LogFile]:
    """The log files of the configuration, not yet opened."""
    return [logs.LogFile(Path(each.path)) for each in settings.logs]


def _flat(sockets: Sequence[Sequence[Sequence[socket.socket]]]) -> Iterator[socket.socket]:
    return (sock for copy in sockets for each in copy for sock in each)


def _bind(settings: Settings, patience: float) -> list[list[list[socket.socket]]]:
    deadline = time.monotonic() + patience
    while True:
        try:
            return ports.bind_all(settings.servers, settings.processes)
        except AddressInUse:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.05)
