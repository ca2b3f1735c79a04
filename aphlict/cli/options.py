"""Options that several commands have, and the configuration that a command uses."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path

import aphlict
from aphlict.cli.console import out
from aphlict.config import loader
from aphlict.config.files import is_header_safe
from aphlict.config.settings import Settings

MAX_TOKEN = 64 * 1024  # bytes; far more than any server accepts


def find_configuration(arguments: Namespace, *, show: Callable[[str], None] = out) -> Path:
    """Return the path of the configuration, and print it. Raises ConfigError."""
    path = loader.find(arguments.config, _root())
    show(f"Using the configuration {path}")
    return path


def load_settings(
    arguments: Namespace, *, files: bool = False, show: Callable[[str], None] = out
) -> tuple[Path, Settings]:
    """Load the configuration, and print its path; `files` also checks the files in it. Raises ConfigError."""
    path = find_configuration(arguments, show=show)
    return path, loader.load(path, files=files)


def _root() -> Path:
    """Return the directory with `conf`: the project, or the current one if only the package is installed."""
    project = Path(aphlict.__file__).resolve().parent.parent
    return project if (project / "conf" / "aphlict").is_dir() else Path.cwd()


def add_channels(parser: ArgumentParser, count: str) -> None:
    """Add the channels, and their instance."""
    parser.add_argument("channels", metavar="CHANNEL", nargs=count, help="name of a channel")
    parser.add_argument(
        "--instance", metavar="NAME", type=utf8, help="instance of the channels (default: default)"
    )


def add_token(parser: ArgumentParser, purpose: str) -> None:
    """Add the options for a token to present to a server."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--token", metavar="JWT", type=jwt, help=f"{purpose}; visible to all users in ps")
    group.add_argument(
        "--token-file",
        dest="token",
        metavar="FILE",
        type=read_jwt,
        help="file that contains the token; - is standard input",
    )


def utf8(text: str) -> str:
    """Accept text that can be part of a URL: the bytes of a command line may be anything."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ArgumentTypeError(f"{text!a} is not UTF-8") from error
    return text


def jwt(text: str) -> str:
    """Accept a token that can be sent in a header."""
    if not is_header_safe(text):
        raise ArgumentTypeError("expected a token: printable ASCII without spaces")
    return text


def read_jwt(path: str) -> str:
    """Read a token from a file."""
    try:
        with open(0 if path == "-" else path, encoding="ascii", closefd=path != "-") as file:
            text = file.read(MAX_TOKEN + 1).strip()
    except (OSError, ValueError) as error:  # ValueError: not ASCII, or a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "not ASCII"
        raise ArgumentTypeError(f"{path} cannot be read ({reason}), expected a file with a token") from error
    if not is_header_safe(text) or len(text) > MAX_TOKEN:
        raise ArgumentTypeError(f"{path} does not contain exactly one token")
    return text
