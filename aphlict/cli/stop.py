"""`stop`: ask the server to finish; end it when it does not."""

import time
from argparse import Namespace
from pathlib import Path

import psutil

from aphlict.cli import configured
from aphlict.cli.console import say
from aphlict.config.settings import Settings
from aphlict.errors import ConfigError, NotPermitted
from aphlict.process.pidfile import find_running, is_alive

GRACE = 5.0  # seconds beyond the configured drain
STEP = 0.02  # seconds between two looks
UNKNOWN = 60.0  # seconds where only the pidfile is known: longer than most drains, shorter than a night
LAST = 2.0  # seconds for a supervisor whose worker was killed to end in good order


def run(arguments: Namespace) -> int:
    """Do it; that nothing runs is no error. Raises ConfigError, which says how to do without a configuration."""
    if arguments.pidfile is not None:
        say(f"Using the pidfile {arguments.pidfile}")
        _stop_at(Path(arguments.pidfile), UNKNOWN)
        return 0
    try:
        _, settings = configured.load(arguments)
    except ConfigError as error:
        raise ConfigError(f"{error} (stop --pidfile FILE needs no configuration)") from error
    stop(settings)
    return 0


def stop(settings: Settings) -> None:
    """Stop the server of this configuration. Raises NotPermitted when it is another user's."""
    _stop_at(Path(settings.pidfile), settings.drain_delay + settings.drain_time + GRACE)


def _stop_at(pidfile: Path, patience: float) -> None:
    process = find_running(pidfile)
    if process is None:
        say("No server is running.")
        return
    try:
        _stop(process, patience)
    except psutil.NoSuchProcess:
        say(f"The server (process {process.pid}) ended by itself.")
    except psutil.AccessDenied as error:
        raise NotPermitted(
            f"process {process.pid} is another user's server: only that user and root can stop it"
        ) from error


def _stop(process: psutil.Process, patience: float) -> None:
    """Every signal goes through psutil, which makes sure that the pid is still the same process."""
    process.terminate()
    say(f"Stopping the server (process {process.pid})…")
    if _ended([process], patience):
        say("Stopped.")
        return
    workers = _children(process)
    for worker in workers:
        worker.kill()
    if not _ended([process], LAST):
        process.kill()
    _ended([process, *workers], LAST)
    say(f"It did not end within {patience:g} s and was killed.")


def _children(process: psutil.Process) -> list[psutil.Process]:
    """None where /proc is mounted with hidepid."""
    try:
        return process.children()
    except psutil.AccessDenied:
        return []


def _ended(processes: list[psutil.Process], patience: float) -> bool:
    """Wait for their end; psutil's own wait would also wait until init has taken note of it."""
    deadline = time.monotonic() + patience
    while any(map(is_alive, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(STEP)
    return True
