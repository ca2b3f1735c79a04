"""The `aphlict` program: finds the command's module and turns errors into a sentence and an exit status."""

import importlib
import os
import sys
from collections.abc import Sequence

from aphlict.cli.arguments import parse
from aphlict.cli.console import complain, prepare
from aphlict.errors import AphlictError

INTERRUPTED = 130  # what a shell calls a program that Ctrl-C ended
PIPE_CLOSED = 141


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit status."""
    prepare()
    try:
        arguments = parse(words)
        # Each command's module brings only what the command needs: `stop` answers without loading a server.
        command = importlib.import_module(f"aphlict.cli.{arguments.command}")
        return int(command.run(arguments))
    except AphlictError as error:
        complain(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's last flush succeeds
        return PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 -- whatever it is, the user gets a sentence
        complain(f"unexpected {type(error).__name__}: {error}")
        return 1
