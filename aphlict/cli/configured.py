"""Finding and reading the configuration that a command was asked to use."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import aphlict
from aphlict.cli.console import say
from aphlict.config import loader
from aphlict.config.settings import ServerSettings, Settings
from aphlict.protocol.addresses import host_port

LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- compared with, not bound to


def load(
    arguments: Namespace, *, files: bool = False, tell: Callable[[str], None] = say
) -> tuple[Path, Settings]:
    """Read the configuration and name its file on the console; `files` also checks the files that it names."""
    path = find(arguments, tell=tell)
    return path, loader.load(path, files=files)


def find(arguments: Namespace, *, tell: Callable[[str], None] = say) -> Path:
    """Find the configuration, and name its file on the console."""
    path = loader.find(arguments.config, _root())
    tell(f"Using the configuration {path}")
    return path


def reachable(server: ServerSettings) -> str:
    """`host:port` under which this machine reaches a server of its own."""
    return host_port(LOCAL.get(server.address, server.address), server.port)


def _root() -> Path:
    """The folder that has `conf`: the project, or where we are if the package was installed without it."""
    project = Path(aphlict.__file__).resolve().parent.parent
    return project if (project / "conf" / "aphlict").is_dir() else Path.cwd()
