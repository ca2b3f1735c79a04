"""`start`, `restart` and `debug`: run the server in the background, or in the foreground."""

import logging
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from aphlict import log_events
from aphlict.cli.console import note, out
from aphlict.cli.options import load_settings
from aphlict.cli.stop import stop
from aphlict.config.settings import Settings
from aphlict.process import daemon
from aphlict.process.bootstrap import StartupContext, bootstrap, preflight
from aphlict.process.channel import ReportPipe
from aphlict.process.daemon import Systemd
from aphlict.process.supervisor import Supervisor

EXAMPLES = {
    "start": (
        "aphlict start",
        "aphlict start --config /etc/aphlict/aphlict.json",
        "aphlict start --foreground",
    ),
    "restart": ("aphlict restart",),
    "debug": ("aphlict debug", "aphlict debug --config test.json 2> trace.txt"),
}

log = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command that the parser is for."""
    if parser.get_default("name") == "start":
        parser.add_argument(
            "--foreground", action="store_true", help="do not daemonize, and log to standard error as well"
        )


def run(arguments: Namespace) -> int:
    """Start the server. `restart` leaves a running server alone if the configuration is invalid."""
    inherited = daemon.open_descriptors()
    config, settings = load_settings(arguments, files=True)
    if arguments.command == "debug":
        return _run_in_foreground(config, settings, trace=True)
    if arguments.command == "restart":
        preflight(settings)
        stop(settings)
    elif arguments.foreground:
        return _run_in_foreground(config, settings, trace=False)
    return _run_in_background(config, settings, inherited)


def _run_in_background(config: Path, settings: Settings, inherited: frozenset[int]) -> int:
    """Daemonize, and return when all ports accept connections."""
    context = bootstrap(config, settings)
    for sentence in context.warnings:
        note(f"Warning: {sentence}")
    try:
        daemon.detach(lambda starter: _supervise(context, starter), inherited)
    finally:
        context.close_copies()
    servers = ", ".join(f"{server.type} on {server.address}:{server.port}" for server in settings.servers)
    out(f"Started: {servers}")
    return 0


def _run_in_foreground(config: Path, settings: Settings, *, trace: bool) -> int:
    return _supervise(bootstrap(config, settings, console=True, trace=trace), None)


def _supervise(context: StartupContext, starter: ReportPipe | None) -> int:
    with context:
        try:
            return Supervisor(context, starter, Systemd(os.environ.pop("NOTIFY_SOCKET", None))).run()
        except Exception as error:
            log.error(log_events.SERVER_ENDED, error)
            raise
