"""What a command says: results on standard output, remarks and errors on standard error."""

import sys


def say(text: str) -> None:
    """Print a result at once: a process that forks must not have it in a buffer."""
    print(text, flush=True)


def reason(error: Exception) -> str:
    """What went wrong, for who reads it at night: no error numbers, and what to do where that is clear."""
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; is the server started? (aphlict status)"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def remark(text: str) -> None:
    """Print what is not the result."""
    print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Print an error."""
    remark(f"aphlict: {text}")
