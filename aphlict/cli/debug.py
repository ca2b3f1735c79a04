"""`debug`: the server in the foreground, with every event traced to the console."""

from argparse import Namespace

from aphlict.cli import configured
from aphlict.cli.start import run_in_foreground


def run(arguments: Namespace) -> int:
    """Do it until Ctrl-C."""
    config, settings = configured.load(arguments, files=True)
    return run_in_foreground(config, settings, trace=True)
