"""`check`: everything that `start` would refuse, without starting."""

from argparse import Namespace
from pathlib import Path

from aphlict.cli import configured
from aphlict.cli.console import remark, say
from aphlict.config.settings import Settings
from aphlict.errors import CertificateError
from aphlict.process import ports, privileges
from aphlict.process.launch import check_trust, find_findings, find_warnings, load_credentials
from aphlict.process.pidfile import find_running


def run(arguments: Namespace) -> int:
    """Do it: configuration, then user, certificates and ports."""
    _, settings = configured.load(arguments, files=True)
    privileges.find_owner(settings)
    load_credentials(settings)
    check_trust(settings)
    for sentence in find_warnings(settings):
        remark(f"Warning: {sentence}")
    errors = [sentence for findings in find_findings(settings) for sentence in findings.errors]
    if errors:
        raise CertificateError(errors[0])
    say(f"The configuration is good. {_try_ports(settings)}")
    return 0


def _try_ports(settings: Settings) -> str:
    """Bind and let go, unless the server that runs has them."""
    running = find_running(Path(settings.pidfile))
    if running is not None:
        return f"The server runs already (process {running.pid}), so its ports were not tried."
    [copy] = ports.bind_all(settings.servers)
    for sock in (sock for sockets in copy for sock in sockets):
        sock.close()
    return "All ports are free."
