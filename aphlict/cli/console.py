"""What a command says: results on standard output, remarks and errors on standard error."""

import sys


def say(text: str) -> None:
    """Print a result at once: a process that forks must not have it in a buffer."""
    print(text, flush=True)


def remark(text: str) -> None:
    """Print what is not the result."""
    print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Print an error."""
    remark(f"aphlict: {text}")
