"""This machine: configuration, certificates, files, process, ports, file descriptors and clock."""

import os
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from aphlict.config import loader
from aphlict.config.settings import ServerSettings, Settings
from aphlict.doctor.admin_client import local_admin
from aphlict.doctor.connector import TIMEOUT_SECONDS, Connector, explain
from aphlict.doctor.report import CheckFailed, CheckReport, Passed
from aphlict.doctor.target import local_target
from aphlict.doctor.upgrade import upgrade
from aphlict.errors import CertificateError, ConfigError, FileError
from aphlict.process.pidfile import find_running
from aphlict.process.ports import describe_port_owner
from aphlict.tls.certificates import inspect_server
from aphlict.tls.ssl_context import unverified_context
from aphlict.tokens import key_set

MIN_DESCRIPTORS = 4096  # fewer limit a medium-sized installation
DESCRIPTOR_THRESHOLD = 0.9  # of the limit: beyond it, new clients will soon be rejected
CLOCK_WARNING_SECONDS = 30.0
CLOCK_FAILURE_SECONDS = 3600.0  # beyond it, certificates appear expired or not yet valid
RAISE_LIMIT = "raise LimitNOFILE in the unit (or ulimit -n before the start), and restart the server"


def check_configuration(path: Path, report: CheckReport) -> Settings:
    """Load the configuration. Raises CheckFailed."""
    with report.check("configuration") as passed:
        try:
            settings = loader.load(path)
        except ConfigError as error:
            remedy = "correct the file; docs/configuration.md describes every key"
            raise CheckFailed(error.code, str(error), remedy) from error
        passed.message = f"{path} is valid"
    return settings


def check_certificates(settings: Settings, report: CheckReport) -> None:
    """Check the certificates of every TLS server. Raises CheckFailed."""
    servers = [server for server in settings.servers if server.tls]
    if not servers:
        return
    warnings: list[str] = []
    with report.check("certificates") as passed:
        for server in servers:
            try:
                inspected = inspect_server(server, datetime.now(timezone.utc))
            except CertificateError as error:
                remedy = "correct the files; docs/configuration.md describes each of them"
                raise CheckFailed(error.code, str(error), remedy) from error
            if inspected.errors:
                remedy = "replace the files, then run: aphlict restart"
                raise CheckFailed(CertificateError.code, inspected.errors[0], remedy)
            warnings += inspected.warnings
        passed.message = f"the certificates of {_count(len(servers), 'server')} are valid"
    for sentence in warnings:
        report.warn(
            "certificates", "certificate_warning", sentence, "renew or correct the files, then send SIGHUP"
        )


def check_keys(settings: Settings, report: CheckReport) -> None:
    """Read the token keys of every server. Raises CheckFailed."""
    servers = [server for server in settings.servers if server.auth_keys]
    if not servers:
        return
    with report.check("keys") as passed:
        try:
            count = sum(len(list(key_set.load(server) or ())) for server in servers)
        except ConfigError as error:
            remedy = "correct the file; docs/authentication.md describes its contents"
            raise CheckFailed(error.code, str(error), remedy) from error
        passed.message = f"tokens are verified with {_count(count, 'key')}"


def check_files(settings: Settings, report: CheckReport) -> None:
    """Check that log files and pidfile can be written. Raises CheckFailed."""
    with report.check("files") as passed:
        for path in written_files(settings):
            check_writable(path)
        passed.message = f"{_count(len(settings.logs), 'log file')} and the pidfile can be written"
    for path in filter(_is_full, written_files(settings)):
        report.warn(
            "files",
            "disk_full",
            f"the disk of {path} is full",
            "free some space: a running server continues without its log, but a stopped one cannot start",
        )


def written_files(settings: Settings) -> list[Path]:
    """Return the files that the server writes."""
    return [*(Path(each.path) for each in settings.logs), Path(settings.pidfile)]


def check_writable(path: Path) -> None:
    """Check that this user can write or create the file. Raises CheckFailed."""
    if path.is_dir():
        remedy = "use the path of a file in the configuration"
        raise CheckFailed(FileError.code, f"{path} is a directory, not a file", remedy)
    existing = _existing(path)
    if not os.access(existing, os.W_OK):
        remedy = "run this as the server's user (or root), or give that user write permission"
        raise CheckFailed(FileError.code, f"{existing} is not writable for this user", remedy)


def _existing(path: Path) -> Path:
    """Return the file, or the nearest directory above it that exists."""
    return next(each for each in (path, *path.parents) if each.exists())


def _is_full(path: Path) -> bool:
    disk = os.statvfs(_existing(path))
    return (disk.f_blocks > 0 and disk.f_bavail == 0) or (disk.f_files > 0 and disk.f_favail == 0)


def check_process(settings: Settings, report: CheckReport) -> list[psutil.Process]:
    """Return the processes of the server that the pidfile names: none if there is no such server."""
    supervisor = _find_supervisor(Path(settings.pidfile))
    if supervisor is None:
        report.skip("process", f"{_why_none(settings.pidfile)}; checking the ports")
        return []
    with report.check("process") as passed:
        passed.message = f"running as process {supervisor.pid}"
    try:
        return supervisor.children() or [supervisor]
    except psutil.AccessDenied:  # /proc is mounted with hidepid
        return [supervisor]


def _find_supervisor(pidfile: Path) -> psutil.Process | None:
    try:
        return find_running(pidfile)
    except FileError:  # the pidfile of another user
        return None


def _why_none(pidfile: str) -> str:
    if Path(pidfile).exists():
        return f"the process in {pidfile} does not exist (it was killed, or the machine was switched off)"
    return f"{pidfile} does not exist"


def check_ports(settings: Settings, report: CheckReport) -> dict[str, Any]:
    """Check that each port responds as it should, and return the status of the node. Raises CheckFailed."""
    status: dict[str, Any] = {}
    for server in settings.servers:
        with report.check(f"{server.type} port {server.port}") as passed:
            if server.type == "admin":
                status = status or _check_admin(settings, server, passed)
                passed.message = passed.message or "responds"
            else:
                _check_client(server, passed)
    return status


def _check_admin(settings: Settings, server: ServerSettings, passed: Passed) -> dict[str, Any]:
    try:
        admin = local_admin(settings)
        response = admin.request("GET", "/status/")
    except OSError as error:
        raise _no_response(server, error) from error
    except CertificateError as error:
        raise CheckFailed(error.code, str(error), "run this as a user that can read the files") from error
    if response.status in (401, 403) and response.code is not None:
        message = f"{admin.url} rejects this command ({response.status}): {response.error}"
        remedy = "send SIGHUP to the running server, or restart it, so that it uses this configuration"
        raise CheckFailed(response.code, message, remedy)
    if response.status != 200 or not isinstance(response.json, dict) or "fingerprint" not in response.json:
        raise CheckFailed(
            "foreign_program",
            f"{admin.url}/status/ responded with {response.status}, which is not a response of Aphlict: "
            f"the port belongs to {describe_port_owner(server)}",
            "stop that program, or use another port in `servers`",
        )
    passed.message = f"node {response.json['fingerprint']}, {response.json.get('state', 'running')}"
    return dict(response.json)


def _check_client(server: ServerSettings, passed: Passed) -> None:
    connector = Connector(local_target(server), unverified_context())
    try:
        connector.open().close()
    except OSError as error:
        raise _no_response(server, error) from error
    try:
        session, _ = upgrade(connector, server, passed)
    except CheckFailed as failed:
        remedy = "stop that program or use another port; if it is this server, restart it"
        message = f"{failed}; the port belongs to {describe_port_owner(server)}"
        raise CheckFailed(failed.code, message, remedy) from failed
    session.close()
    passed.message = f"accepts WebSocket connections{' over TLS' if server.tls else ''}"


def _no_response(server: ServerSettings, error: OSError) -> CheckFailed:
    address = f"{server.address}:{server.port}"
    if isinstance(error, ConnectionRefusedError):
        message = f"nothing listens on {address}: the server is not running"
        return CheckFailed("not_running", message, "start it: aphlict start")
    if isinstance(error, TimeoutError):
        message = f"{address} did not respond within {TIMEOUT_SECONDS:g} s"
        return CheckFailed("not_responding", message, "check the server's log, and the load of this machine")
    return CheckFailed(
        "foreign_program",
        f"{address} does not respond as configured ({explain(error)}): the port belongs to "
        f"{describe_port_owner(server)}",
        "restart the server if its configuration has changed; otherwise stop that program or use another port",
    )


def check_descriptors(workers: Sequence[psutil.Process], report: CheckReport) -> None:
    """Check the limit and use of file descriptors of the server's processes. Raises CheckFailed."""
    try:
        limit, used = max(
            map(_descriptors, workers or [psutil.Process()]), key=lambda pair: pair[1] / pair[0]
        )
    except psutil.Error as error:
        reason = f"cannot be read ({type(error).__name__}): run this as the server's user or root"
        report.skip("file descriptors", reason)
        return
    with report.check("file descriptors") as passed:
        if used >= DESCRIPTOR_THRESHOLD * limit:
            message = f"the server uses {used:,} of {limit:,} file descriptors: it will soon reject clients"
            raise CheckFailed("descriptors_exhausted", message, RAISE_LIMIT)
        passed.message = f"{used:,} of {limit:,} in use" if workers else f"the limit is {limit:,}"
    if limit < MIN_DESCRIPTORS:
        message = f"a limit of {limit:,} is low: each client uses one"
        report.warn("file descriptors", "descriptor_limit_low", message, RAISE_LIMIT)


def _descriptors(process: psutil.Process) -> tuple[int, int]:
    """Return the soft limit of a process, and the number in use."""
    limit, _ = process.rlimit(psutil.RLIMIT_NOFILE)
    return (limit if limit >= 0 else 1 << 30), process.num_fds()


def check_clock(offsets: dict[str, float], report: CheckReport) -> None:
    """Compare this machine's clock with others: by how many seconds they are ahead of it. Raises CheckFailed."""
    with report.check("clock") as passed:
        installed = Path(__file__).stat().st_mtime
        if time.time() < installed - CLOCK_FAILURE_SECONDS:
            message = (
                f"this machine's clock is at {time.strftime('%Y-%m-%d')}, before this program was installed"
            )
            remedy = "set the clock (timedatectl set-ntp true): certificates appear to be not yet valid"
            raise CheckFailed("clock_wrong", message, remedy)
        for name, offset in offsets.items():
            if abs(offset) > CLOCK_FAILURE_SECONDS:
                message = f"this machine's clock is {_describe_offset(offset)} that of {name}"
                raise CheckFailed("clock_wrong", message, "set the wrong clock (timedatectl set-ntp true)")
        passed.message = (
            f"agrees with {', '.join(offsets)}" if offsets else "plausible; nothing to compare it with"
        )
    for name, offset in offsets.items():
        if CLOCK_WARNING_SECONDS < abs(offset) <= CLOCK_FAILURE_SECONDS:
            message = f"this machine's clock is {_describe_offset(offset)} that of {name}"
            remedy = "synchronize both with NTP; otherwise the times in their logs differ"
            report.warn("clock", "clock_skew", message, remedy)


def _describe_offset(offset: float) -> str:
    return f"{abs(offset):.0f} s {'behind' if offset > 0 else 'ahead of'}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
