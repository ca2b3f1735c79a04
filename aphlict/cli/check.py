"""`check`: everything that `start` checks, without starting."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from aphlict.cli.console import note, out
from aphlict.cli.options import load_settings
from aphlict.config.settings import Settings
from aphlict.doctor.local import check_writable, written_files
from aphlict.doctor.report import CheckFailed
from aphlict.errors import CertificateError, FileError
from aphlict.process import ports
from aphlict.process.bootstrap import find_exposed_files, find_warnings, inspect_certificates, preflight
from aphlict.process.pidfile import find_running

EXAMPLES = {
    "check": (
        "aphlict check",
        "aphlict check --config new.json && cp new.json /etc/aphlict/aphlict.json",
    )
}


def add_arguments(_parser: ArgumentParser) -> None:
    """Add no options."""


def run(arguments: Namespace) -> int:
    """Check configuration, user, certificates, files and ports."""
    config, settings = load_settings(arguments, files=True)
    preflight(settings)
    errors = [sentence for report in inspect_certificates(settings) for sentence in report.errors]
    warnings = [*find_warnings(settings), *find_exposed_files(config, settings), *_find_unwritable(settings)]
    for sentence in warnings:
        if sentence not in errors[:1]:  # that one is raised
            note(f"Warning: {sentence}")
    if errors:
        raise CertificateError(errors[0])
    out(f"The configuration is valid. {_check_ports(settings)}")
    return 0


def _find_unwritable(settings: Settings) -> Iterator[str]:
    """Yield warnings, not errors: another user may start the server. Raises FileError."""
    for path in written_files(settings):
        if path.is_dir():
            raise FileError(f"cannot write {path}: it is a directory, expected the path of a file")
        try:
            check_writable(path)
        except CheckFailed as failed:
            yield f"{failed}: {failed.remedy}"


def _check_ports(settings: Settings) -> str:
    """Bind the ports and close them, unless the running server has them. Raises BindError."""
    running = find_running(Path(settings.pidfile))
    if running is not None:
        return f"The server is running (process {running.pid}), so its ports were not checked."
    [copy] = ports.bind_all(settings.servers)
    for sock in (sock for sockets in copy for sock in sockets):
        sock.close()
    return "All ports are free."
