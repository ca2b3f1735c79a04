"""Everything that a server needs before it starts: checked files, pidfile, ports, log; and warnings about them."""

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
from aphlict.log_events import ADMIN_OPEN, FILE_EXPOSED, PORT_BLOCKED, Notice
from aphlict.process import logs, ports, privileges
from aphlict.process.pidfile import Pidfile
from aphlict.protocol.addresses import host_port
from aphlict.server.access import is_loopback
from aphlict.server.admin_port import load_renderer
from aphlict.server.auth import Credentials, load_credentials
from aphlict.server.client_port import load_script
from aphlict.server.console_files import load_console
from aphlict.tls.certificates import CertificateReport, inspect_server
from aphlict.tls.ssl_context import client_context
from aphlict.tokens.keys import read_keys

log = logging.getLogger(__name__)

BIND_TIMEOUT = 2.0  # seconds that the workers of a killed supervisor may need to release their ports
BIND_RETRY_INTERVAL = 0.05  # seconds
STDERR, STDERR_PATH = 2, "/dev/stderr"
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
OTHERS_ACCESS = stat.S_IROTH | stat.S_IWOTH


class LoadedConfig(NamedTuple):
    """A configuration, with what was read from its files, and warnings for the operator."""

    settings: Settings
    credentials: list[Credentials]
    files: FileReader
    warnings: list[Notice]


@dataclass
class StartupContext:
    """What a supervisor and its workers run on. `files` has read every file of the settings for later workers."""

    config: Path
    settings: Settings
    credentials: list[Credentials]
    files: FileReader
    sockets: Sequence[Sequence[Sequence[socket.socket]]]  # by process that serves clients, then by server
    pidfile: Pidfile
    log_handler: logs.LogHandler
    warnings: list[Notice]
    undo: ExitStack = field(repr=False)

    def __enter__(self) -> "StartupContext":
        return self

    def __exit__(self, *unused: object) -> None:
        """Close and release everything."""
        self.undo.close()

    def apply(self, loaded: LoadedConfig, files: Sequence[logs.LogFile]) -> None:
        """Use another configuration; its log files are open."""
        self.settings, self.credentials, self.files = loaded.settings, loaded.credentials, loaded.files
        self.log_handler.replace_files(files)
        for notice in loaded.warnings:
            log.warning(notice.event, *notice.values)

    def close_copies(self) -> None:
        """In the process that only started the server: close its copies, without releasing anything."""
        self.pidfile.close()
        self.log_handler.close()
        self.close_sockets()

    def close_sockets(self, keep: Collection[socket.socket] = ()) -> None:
        """Close this process's copies of the listening sockets. A port is closed when every copy is."""
        for sock in _flat(self.sockets):
            if sock not in keep:
                sock.close()


def bootstrap(
    config: Path, settings: Settings, *, console: bool = False, trace: bool = False
) -> StartupContext:
    """Check and open everything. If started as root, the privileges have been dropped when this returns.

    Raises AphlictError, with nothing left open or locked. `console` also logs to standard error, unless the
    configuration has a log for it; `trace` logs every event.
    """
    with ExitStack() as undo:
        files = FileReader()
        owner, credentials = preflight(settings, files.read)
        pidfile = Pidfile.acquire(Path(settings.pidfile), owner)
        undo.callback(pidfile.release)
        sockets = _bind(settings, timeout=BIND_TIMEOUT if pidfile.stale else 0.0)
        for sock in _flat(sockets):
            undo.callback(sock.close)
        for file in log_files(settings):
            file.prepare(owner)
        warnings = [*find_warnings(settings, files.read), *find_exposed_files(config, settings, files.read)]
        if pidfile.stale:
            warnings.insert(0, pidfile.stale)
        load_script()  # the owner may not be allowed to read its folder
        load_renderer()
        load_console()
        if owner is not None:
            privileges.drop(owner)
        console = console and all(each.path != STDERR_PATH for each in settings.logs)
        sinks = [*log_files(settings), *([logs.StreamSink(STDERR)] if console else [])]
        handler = logs.LogHandler(sinks, trace=trace)
        undo.callback(handler.close)
        logs.install(handler)
        for notice in warnings:
            log.warning(notice.event, *notice.values)
        return StartupContext(
            config, settings, credentials, files, sockets, pidfile, handler, warnings, undo.pop_all()
        )


def preflight(
    settings: Settings, read: Read = read_file
) -> tuple[privileges.Owner | None, list[Credentials]]:
    """Check everything that can be checked without affecting a running server: user, keys, certificates.

    Returns the owner of the server, and the credentials of each port. Raises AphlictError.
    """
    owner = privileges.find_owner(settings)
    return owner, _load_credentials(settings, read)


def load(settings: Settings, files: FileReader) -> LoadedConfig:
    """Read and check every file that the settings name. Raises ConfigError."""
    credentials = _load_credentials(settings, files.read)
    return LoadedConfig(settings, credentials, files, find_warnings(settings, files.read))


def _load_credentials(settings: Settings, read: Read) -> list[Credentials]:
    """Load the credentials of each port, and check those for peers. Raises ConfigError."""
    credentials = [load_credentials(server, read) for server in settings.servers]
    for peer in settings.peers:
        if peer.protocol == "https":
            client_context(peer.ssl_ca, peer.ssl_cert, peer.ssl_key, read)
    return credentials


def log_files(settings: Settings) -> list[logs.LogFile]:
    """The log files of the configuration, not yet opened."""
    return [
        logs.LogFile(Path(each.path), each.format, each.level and LEVELS[each.level])
        for each in settings.logs
    ]


def _flat(sockets: Sequence[Sequence[Sequence[socket.socket]]]) -> Iterator[socket.socket]:
    return (sock for copy in sockets for each in copy for sock in each)


def _bind(settings: Settings, timeout: float) -> list[list[list[socket.socket]]]:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return ports.bind_all(settings.servers, settings.processes)
        except AddressInUse:
            if time.monotonic() >= deadline:
                raise
        time.sleep(BIND_RETRY_INTERVAL)


# Warnings


def inspect_certificates(settings: Settings, read: Read = read_file) -> list[CertificateReport]:
    """A report on the certificate of each port with TLS. Raises CertificateError."""
    now = datetime.now(timezone.utc)
    return [inspect_server(server, now, read) for server in settings.servers if server.tls]


def find_warnings(settings: Settings, read: Read = read_file) -> list[Notice]:
    """Warnings about a valid configuration. Raises CertificateError."""
    reports = inspect_certificates(settings, read)
    notices = [notice for each in reports for notice in (*each.errors, *each.warnings)]
    notices += (Notice(ADMIN_OPEN, _name(server)) for server in settings.servers if _is_open(server))
    blocked = (server for server in settings.servers if _is_blocked(server))
    notices += (Notice(PORT_BLOCKED, _name(server), server.port) for server in blocked)
    if warning := privileges.find_warning(settings):
        notices.append(warning)
    return notices


def _name(server: ServerSettings) -> str:
    return host_port(server.address, server.port)


def _is_open(server: ServerSettings) -> bool:
    """Whether an admin port without authentication listens on an address beyond loopback."""
    return server.type == "admin" and not (server.secrets or server.ssl_ca or is_loopback(server.address))


def _is_blocked(server: ServerSettings) -> bool:
    """Whether browsers refuse to connect to this port, and no proxy seems to be in front of it."""
    behind_proxy = server.proxy_trusted or server.proxy_protocol or is_loopback(server.address)
    return server.type == "client" and server.port in BLOCKED_PORTS and not behind_proxy


def find_exposed_files(config: Path, settings: Settings, read: Read = read_file) -> Iterator[Notice]:
    """A warning for each file with a secret that every user can read or write. Raises ConfigError."""
    seen: set[str] = set()
    for key, path in _secret_files(config, settings, read):
        if path not in seen and _is_exposed(path):
            yield Notice(FILE_EXPOSED, key, path, _fix_command(path, settings))
        seen.add(path)


def _files_of_admin(prefix: str, config: Path, server: ServerSettings) -> Iterator[tuple[str, str]]:
    if server.admin_secret_file:
        yield f"{prefix}.admin.secret.file", server.admin_secret_file
    elif server.admin_secret:
        yield f"{prefix}.admin.secret", str(config)
    if server.metrics_secret:
        yield f"{prefix}.metrics.secret", str(config)


def _secret_files(config: Path, settings: Settings, read: Read) -> Iterator[tuple[str, str]]:
    """(configuration key, path) of each file that contains a secret."""
    for index, server in enumerate(settings.servers):
        prefix = f"servers[{index}]"
        yield from _files_of_admin(prefix, config, server)
        if server.ssl_key:
            yield f"{prefix}.ssl.key", server.ssl_key
        for path in server.auth_keys:
            if any(key.signer is not None for key in read_keys(f"{prefix}.auth.keys", path, read)):
                yield f"{prefix}.auth.keys", path  # it can sign tokens; a public key is no secret
    for index, peer in enumerate(settings.cluster):
        if peer.secret:
            yield f"cluster[{index}].secret", str(config)
        if peer.ssl_key:
            yield f"cluster[{index}].ssl.key", peer.ssl_key


def _is_exposed(path: str) -> bool:
    """A file in a folder that others cannot enter is not exposed, whatever its own mode."""
    real = Path(path).resolve()
    try:
        can_enter = all(each.stat().st_mode & stat.S_IXOTH for each in real.parents)
        return can_enter and bool(real.stat().st_mode & OTHERS_ACCESS)
    except OSError:  # if this user cannot look at it, others cannot either
        return False


def _fix_command(path: str, settings: Settings) -> str:
    """A command after which the server still can read the file, and others cannot."""
    status, owner = Path(path).stat(), privileges.find_owner(settings)
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
