"""`restart`: stop what runs, then start."""

from argparse import Namespace

from aphlict.cli import configured
from aphlict.cli.start import run_in_background
from aphlict.cli.stop import stop
from aphlict.process import daemon
from aphlict.process.bootstrap import prove_startable


def run(arguments: Namespace) -> int:
    """Do it; a configuration that could not be started leaves the running server alone."""
    inherited = daemon.open_descriptors()
    config, settings = configured.load(arguments, files=True)
    prove_startable(settings)
    stop(settings)
    return run_in_background(config, settings, inherited)
