"""`notify`: publish one message and print the receipt."""

import json
from argparse import Namespace
from typing import Any

from aphlict.cli import configured
from aphlict.cli.admin import ask
from aphlict.cli.console import remark, say_json
from aphlict.errors import UsageError


def run(arguments: Namespace) -> int:
    """Do it."""
    message = compose(arguments)
    _, settings = configured.load(arguments, tell=remark)
    say_json(ask(settings, "POST", "/", arguments.instance, json.dumps(message).encode()))
    return 0


def compose(arguments: Namespace) -> dict[str, Any]:
    """Make the object that the options describe."""
    if arguments.data is None:
        message: Any = {"type": "notification", "text": arguments.message}
    else:
        message = _read(arguments.data)
    if arguments.channels:
        message["subscribers"] = arguments.channels
    if "subscribers" not in message:
        raise UsageError('no CHANNEL is given, and --data has no "subscribers" (see aphlict notify --help)')
    return dict(message)


def _read(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--data is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError("--data has to be a JSON object")
    return value
