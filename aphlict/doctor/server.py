"""The server of this configuration: files, process and ports."""

import os
from pathlib import Path
from typing import Any

import psutil

from aphlict.config.settings import ServerSettings, Settings
from aphlict.doctor.asking import own_admin
from aphlict.doctor.findings import CheckList, Note, Trouble
from aphlict.doctor.reaching import TIMEOUT, Reaching, explain, unverified
from aphlict.doctor.target import of_server
from aphlict.doctor.upgrading import upgrade
from aphlict.errors import CertificateError, FileError
from aphlict.process.pidfile import find_running
from aphlict.process.ports import holder


def check_files(settings: Settings, checks: CheckList) -> None:
    """Whether log files and pidfile can be written. Raises Trouble."""
    with checks.check("files") as note:
        for path in files(settings):
            check_writable(path)
        note.says = (
            f"{len(settings.logs)} log file{'s' * (len(settings.logs) != 1)} and the pidfile can be written"
        )
    for path in filter(_is_full, files(settings)):
        checks.doubt(
            "files",
            f"the disk under {path} is full",
            "make room: a server goes on without its log, but one that is stopped cannot start again",
        )


def files(settings: Settings) -> list[Path]:
    """What the server writes."""
    return [*(Path(each.path) for each in settings.logs), Path(settings.pidfile)]


def check_writable(path: Path) -> None:
    """Whether this user may write the file, or make it. Raises Trouble."""
    there = _existing(path)
    if path.is_dir():
        raise Trouble(f"{path} is not a file, but a folder", "give the path of a file in the configuration")
    if not os.access(there, os.W_OK):
        raise Trouble(
            f"{there} cannot be written by this user",
            "run this as the server's user (or root), or give that user the right to write there",
        )


def _existing(path: Path) -> Path:
    """The file, or the nearest folder above it that is there."""
    return next(each for each in (path, *path.parents) if each.exists())


def _is_full(path: Path) -> bool:
    disk = os.statvfs(_existing(path))
    return (disk.f_blocks > 0 and disk.f_bavail == 0) or (disk.f_files > 0 and disk.f_favail == 0)


def check_process(settings: Settings, checks: CheckList) -> list[psutil.Process]:
    """Whether the server runs, and the processes that serve: none where no pidfile names them."""
    supervisor = _find(Path(settings.pidfile))
    if supervisor is None:
        checks.skip("process", f"{_why_none(settings.pidfile)}; the ports tell more")
        return []
    with checks.check("process") as note:
        note.says = f"runs as process {supervisor.pid}"
    try:
        return supervisor.children() or [supervisor]
    except psutil.AccessDenied:  # /proc is mounted with hidepid
        return [supervisor]


def _why_none(pidfile: str) -> str:
    if Path(pidfile).exists():
        return f"the server that wrote {pidfile} is gone (killed, or the machine went down)"
    return f"no server has written {pidfile}"


def _find(pidfile: Path) -> psutil.Process | None:
    try:
        return find_running(pidfile)
    except FileError:  # it cannot be read, either: the pidfile of another user
        return None


def check_ports(settings: Settings, checks: CheckList) -> dict[str, Any]:
    """Whether each port answers as it should; the status of the node. Raises Trouble."""
    status: dict[str, Any] = {}
    for server in settings.servers:
        with checks.check(f"{server.type} port {server.port}") as note:
            if server.type == "admin":
                status = status or _ask_admin(settings, server, note)
                note.says = note.says or "answers"
            else:
                _ask_client(server, note)
    return status


def _ask_admin(settings: Settings, server: ServerSettings, note: Note) -> dict[str, Any]:
    try:
        admin = own_admin(settings)
        answer = admin.ask("GET", "/status/")
    except OSError as error:
        raise _no_answer(server, error) from error
    except CertificateError as error:
        raise Trouble(str(error), "run this as a user who may read them") from error
    if answer.status in (401, 403) and answer.error is not None:
        change = "have the running server read its configuration again: send SIGHUP, or restart it"
        raise Trouble(f"{admin.url} refuses this command ({answer.status}): {answer.error}", change)
    if answer.status != 200 or not isinstance(answer.json, dict) or "fingerprint" not in answer.json:
        raise Trouble(
            f"{admin.url}/status/ answers {answer.status}, and not as a server of this project: "
            f"the port belongs to {holder(server)}",
            "stop that program, or give `servers` another port",
        )
    note.says = f"node {answer.json['fingerprint']}, {answer.json.get('state', 'running')}"
    return dict(answer.json)


def _ask_client(server: ServerSettings, note: Note) -> None:
    reaching = Reaching(of_server(server), unverified())
    try:
        reaching.open().close()
    except OSError as error:
        raise _no_answer(server, error) from error
    try:
        browser, _ = upgrade(reaching, server, note)
    except Trouble as trouble:
        change = "stop that program or use another port; if it is this server, restart it"
        raise Trouble(f"{trouble}; the port belongs to {holder(server)}", change) from trouble
    browser.close()
    note.says = f"takes WebSockets{' over TLS' if server.tls else ''}"


def _no_answer(server: ServerSettings, error: OSError) -> Trouble:
    where = f"{server.address}:{server.port}"
    if isinstance(error, ConnectionRefusedError):
        return Trouble(f"nothing listens on {where}: the server does not run", "start it: aphlict start")
    if isinstance(error, TimeoutError):
        return Trouble(
            f"{where} did not answer within {TIMEOUT:g} s",
            "see the server's log, and the load of this machine",
        )
    return Trouble(
        f"{where} does not answer as it is configured ({explain(error)}): the port belongs to {holder(server)}",
        "restart the server if its configuration was changed; else stop that program or use another port",
    )
