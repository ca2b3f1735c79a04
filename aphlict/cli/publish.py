"""`publish`: publish one message and print the receipt."""

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from aphlict.cli.console import note, out_json
from aphlict.cli.options import add_channels, load_settings
from aphlict.doctor.admin_client import request_json, with_instance
from aphlict.errors import UsageError

EXAMPLES = {
    "publish": (
        "aphlict publish demo --message hello",
        """aphlict publish demo other --data '{"type": "refresh", "key": 7}'""",
    )
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_channels(parser, "*")
    content = parser.add_mutually_exclusive_group(required=True)
    content.add_argument("--message", metavar="TEXT", help='publish {"type": "notification", "text": TEXT}')
    content.add_argument(
        "--data", metavar="JSON", help='publish this object; CHANNEL may be omitted if it has "subscribers"'
    )


def run(arguments: Namespace) -> int:
    """Publish. Raises AdminUnreachable."""
    body = json.dumps(_message(arguments)).encode()
    _, settings = load_settings(arguments, show=note)
    out_json(request_json(settings, "POST", with_instance("/", arguments.instance), body))
    return 0


def _message(arguments: Namespace) -> dict[str, Any]:
    if arguments.data is None:
        message: dict[str, Any] = {"type": "notification", "text": arguments.message}
    else:
        message = _parse(arguments.data)
    if arguments.channels:
        message["subscribers"] = arguments.channels
    if "subscribers" not in message:
        raise UsageError('CHANNEL is missing, and --data has no "subscribers" (see aphlict publish --help)')
    return message


def _parse(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--data is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError("--data is not a JSON object")
    return value
