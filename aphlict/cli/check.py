"""`check`: everything that `start` would refuse, without starting."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from aphlict.cli import configured
from aphlict.cli.console import remark, say
from aphlict.config.settings import Settings
from aphlict.doctor.findings import Trouble
from aphlict.doctor.server import check_writable, files
from aphlict.errors import CertificateError, FileError
from aphlict.process import ports
from aphlict.process.bootstrap import find_exposed, find_findings, find_warnings, prove_startable
from aphlict.process.pidfile import find_running


def run(arguments: Namespace) -> int:
    """Do it: configuration, then user, certificates, files and ports."""
    config, settings = configured.load(arguments, files=True)
    prove_startable(settings)
    errors = [sentence for findings in find_findings(settings) for sentence in findings.errors]
    warnings = [*find_warnings(settings), *find_exposed(config, settings), *_find_unwritable(settings)]
    for sentence in warnings:
        if sentence not in errors[:1]:  # which is the error
            remark(f"Warning: {sentence}")
    if errors:
        raise CertificateError(errors[0])
    say(f"The configuration is good. {_try_ports(settings)}")
    return 0


def _find_unwritable(settings: Settings) -> Iterator[str]:
    """Only a warning: who checks need not be the user that the server is started by. Raises FileError."""
    for path in files(settings):
        if path.is_dir():
            raise FileError(f"cannot write {path}: it is a folder, expected the path of a file")
        try:
            check_writable(path)
        except Trouble as trouble:
            yield f"{trouble}: {trouble.change}"


def _try_ports(settings: Settings) -> str:
    """Bind and let go, unless the server that runs has them."""
    running = find_running(Path(settings.pidfile))
    if running is not None:
        return f"The server runs already (process {running.pid}), so its ports were not tried."
    [copy] = ports.bind_all(settings.servers)
    for sock in (sock for sockets in copy for sock in sockets):
        sock.close()
    return "All ports are free."
