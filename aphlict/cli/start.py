"""`start`: check, bind, go to the background, and say so once it is true."""

import logging
import os
from argparse import Namespace
from pathlib import Path

from aphlict.cli import configured
from aphlict.cli.console import remark, say
from aphlict.config.settings import Settings
from aphlict.process import daemon
from aphlict.process.bootstrap import Launch, prepare
from aphlict.process.daemon import Systemd
from aphlict.process.startup_report import Sender
from aphlict.process.supervisor import Supervisor

log = logging.getLogger(__name__)


def run(arguments: Namespace) -> int:
    """Do it."""
    inherited = daemon.open_descriptors()
    config, settings = configured.load(arguments, files=True)
    if arguments.foreground:
        return run_in_foreground(config, settings, trace=False)
    return run_in_background(config, settings, inherited)


def run_in_background(config: Path, settings: Settings, inherited: frozenset[int]) -> int:
    """Start the server; returns when all its listeners accept."""
    launched = prepare(config, settings)
    for sentence in launched.warnings:
        remark(f"Warning: {sentence}")
    try:
        daemon.detach(lambda starter: _supervise(launched, starter), inherited)
    finally:
        launched.forget()
    say(f"Started: {describe(settings)}")
    return 0


def run_in_foreground(config: Path, settings: Settings, *, trace: bool) -> int:
    """Be the server, until it is told to stop."""
    return _supervise(prepare(config, settings, console=True, trace=trace), None)


def describe(settings: Settings) -> str:
    """`client on 0.0.0.0:22280, admin on 127.0.0.1:22281`."""
    return ", ".join(f"{server.type} on {server.address}:{server.port}" for server in settings.servers)


def _supervise(launched: Launch, starter: Sender | None) -> int:
    with launched:
        try:
            return Supervisor(launched, starter, Systemd(os.environ.pop("NOTIFY_SOCKET", None))).run()
        except Exception as error:
            log.error("the server ends: %s", error)
            raise
