"""The `aphlict` program: parses the command line, runs the command, and turns errors into exit statuses."""

import importlib
import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from aphlict import __version__
from aphlict.cli.console import error as print_error
from aphlict.cli.console import prepare
from aphlict.errors import AphlictError, UsageError

INTERRUPTED = 130  # the shell's status of a program ended by SIGINT
PIPE_CLOSED = 141  # and by SIGPIPE


class Command(NamedTuple):
    """A command. Its module has `add_arguments(parser)` and `run(arguments)`, which returns the exit status."""

    module: str
    summary: str
    alias: str | None = None


COMMANDS = {
    "start": Command("start", "start the server in the background"),
    "stop": Command("stop", "stop the server gracefully, and kill it if it hangs"),
    "restart": Command("start", "stop the server if it is running, then start it"),
    "status": Command("status", "show whether the server is running, and its statistics"),
    "debug": Command("start", "run the server in the foreground and trace every event"),
    "check": Command("check", "check the configuration, certificates and ports without starting"),
    "doctor": Command("doctor", "send a test message along the full path and report the first failure"),
    "trace": Command("trace", "show which clients received a message, and why others did not"),
    "subscribe": Command("subscribe", "subscribe to channels and print messages as JSON lines", "listen"),
    "publish": Command("publish", "publish a message and print the receipt", "notify"),
    "token": Command("token", "create a token for a client and print it"),
    "demo": Command("demo", "run a server with a demo page"),
}


class Parser(ArgumentParser):
    """Raises UsageError instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Reject a command line."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit status."""
    prepare()
    try:
        arguments = parse(sys.argv[1:] if words is None else words)
        return int(_module(arguments.command).run(arguments))
    except AphlictError as error:
        print_error(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        return PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 -- users get a sentence, not a traceback
        print_error(f"unexpected {type(error).__name__}: {error}")
        return 1


def parse(words: Sequence[str]) -> Namespace:
    """Parse a command line. Raises UsageError; `--help` and `--version` print and exit."""
    parser = Parser(
        prog="aphlict",
        description="Notification server: publishes messages to connected browsers.",
        epilog="Run `aphlict COMMAND --help` for options and examples.\n\n"
        "exit status: 0 success, 1 failure, 77 invalid command line or configuration",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"aphlict {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    first = next((word for word in words if not word.startswith("-")), None)
    for name, command in COMMANDS.items():
        aliases = [] if command.alias is None else [command.alias]
        sub = commands.add_parser(
            name, aliases=aliases, help=command.summary, formatter_class=RawDescriptionHelpFormatter
        )
        if first in (name, *aliases):
            _describe(sub, name, command)
    arguments = parser.parse_args(words)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        raise UsageError("COMMAND is missing")
    arguments.command = arguments.name
    return arguments


def _describe(parser: ArgumentParser, name: str, command: Command) -> None:
    """Add the options of the command that was given. Importing the modules of all would delay each of them."""
    parser.description = f"{command.summary[0].upper()}{command.summary[1:]}."
    if command.alias is not None:
        parser.description += f" Alias: {command.alias}."
    parser.set_defaults(name=name)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="configuration file (default: conf/aphlict/aphlict.custom.json if it exists, else aphlict.default.json)",
    )
    module = _module(name)
    module.add_arguments(parser)
    examples = "\n".join(f"  {line}" for line in module.EXAMPLES[name])
    parser.epilog = f"examples:\n{examples}" + (f"\n\n{parser.epilog}" if parser.epilog else "")


def _module(command: str) -> Any:
    return importlib.import_module(f"aphlict.cli.{COMMANDS[command].module}")
