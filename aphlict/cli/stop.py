"""`stop`: stop the server gracefully, and kill it if it does not exit."""

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import psutil

from aphlict.cli.console import out
from aphlict.cli.options import load_settings
from aphlict.config.settings import Settings
from aphlict.errors import ConfigError, NotPermitted
from aphlict.process.pidfile import find_running, is_alive

EXAMPLES = {
    "stop": (
        "aphlict stop",
        "aphlict stop --config /etc/aphlict/aphlict.json",
        "aphlict stop --pidfile /run/aphlict/aphlict.pid",
    )
}
GRACE_SECONDS = 5.0  # beyond drain.delay and drain.time
PIDFILE_SECONDS = 60.0  # with --pidfile, where the drain is unknown
KILL_SECONDS = 2.0  # for a supervisor to exit after its workers were killed
POLL_SECONDS = 0.02


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--pidfile",
        metavar="FILE",
        help="stop the server that wrote this file, without reading a configuration",
    )


def run(arguments: Namespace) -> int:
    """Stop the server. It is no error if none is running."""
    if arguments.pidfile is not None:
        out(f"Using the pidfile {arguments.pidfile}")
        _stop_at(Path(arguments.pidfile), PIDFILE_SECONDS)
        return 0
    try:
        _, settings = load_settings(arguments)
    except ConfigError as error:
        raise ConfigError(f"{error} (stop --pidfile FILE does not need a configuration)") from error
    stop(settings)
    return 0


def stop(settings: Settings) -> None:
    """Stop the server of this configuration. Raises NotPermitted if it belongs to another user."""
    _stop_at(Path(settings.pidfile), settings.drain_delay + settings.drain_time + GRACE_SECONDS)


def _stop_at(pidfile: Path, timeout: float) -> None:
    process = find_running(pidfile)
    if process is None:
        out("The server is not running.")
        return
    try:
        _stop(process, timeout)
    except psutil.NoSuchProcess:
        out(f"The server (process {process.pid}) has already exited.")
    except psutil.AccessDenied as error:
        raise NotPermitted(
            f"the server (process {process.pid}) belongs to another user: only that user or root can stop it"
        ) from error


def _stop(process: psutil.Process, timeout: float) -> None:
    """Stop a process. psutil sends no signal to another process that has the same pid by now."""
    process.terminate()
    out(f"Stopping the server (process {process.pid})…")
    if _have_exited([process], timeout):
        out("Stopped.")
        return
    workers = _children(process)
    for worker in workers:
        worker.kill()
    if not _have_exited([process], KILL_SECONDS):
        process.kill()
    _have_exited([process, *workers], KILL_SECONDS)
    out(f"Killed, because it did not exit within {timeout:g} s.")


def _children(process: psutil.Process) -> list[psutil.Process]:
    """Return the child processes: none if /proc is mounted with hidepid."""
    try:
        return process.children()
    except psutil.AccessDenied:
        return []


def _have_exited(processes: list[psutil.Process], timeout: float) -> bool:
    """Wait until all have exited. psutil's own wait would also wait until init has reaped them."""
    deadline = time.monotonic() + timeout
    while any(map(is_alive, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
