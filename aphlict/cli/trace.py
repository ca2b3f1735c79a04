"""`trace`: what became of a message, and which clients did not receive it."""

from argparse import ArgumentParser, Namespace

from aphlict.cli.console import note, out, out_json
from aphlict.cli.options import load_settings, utf8
from aphlict.core.trace_report import TraceQuery
from aphlict.doctor.admin_client import request_json
from aphlict.errors import UsageError

EXAMPLES = {
    "trace": (
        "aphlict trace 6d9e3f2c --connections",
        "aphlict trace 6d9e3f2c --user alice",
        "aphlict trace --channel PHID-TASK-abc",
        "aphlict trace --user alice --json | jq .nodes[].connections",
    )
}
TIMEOUT_SECONDS = 5.0  # a peer that does not respond takes half of it
FOUND, NOT_FOUND = 0, 1


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "unique_id", metavar="UNIQUEID", nargs="?", default="", type=utf8, help="uniqueID of a message"
    )
    parser.add_argument(
        "--channel",
        metavar="NAME",
        default="",
        type=utf8,
        help="only subscribers of this channel; without UNIQUEID, its last messages",
    )
    parser.add_argument(
        "--user",
        metavar="SUB",
        default="",
        type=utf8,
        help="only connections whose token has this subject; without UNIQUEID, what they subscribe to",
    )
    parser.add_argument(
        "--instance", metavar="NAME", default="", type=utf8, help="only this instance (default: all)"
    )
    parser.add_argument("--connections", action="store_true", help="list the connections one by one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.epilog = (
        "A trace reaches back as far as the history, 60 seconds at most, and covers all nodes.\n\n"
        "exit status: 0 found, 1 nothing found, or no response, 77 invalid command line or configuration"
    )


def run(arguments: Namespace) -> int:
    """Trace. Raises AdminUnreachable."""
    query = TraceQuery(
        arguments.unique_id,
        arguments.channel,
        arguments.user,
        arguments.instance,
        connections=arguments.connections,
    )
    if not (query.unique_id or query.channel or query.user):
        raise UsageError("UNIQUEID, --channel or --user is missing (see aphlict trace --help)")
    _, settings = load_settings(arguments, show=note)
    answer = request_json(settings, "GET", query.target(), timeout=TIMEOUT_SECONDS)
    if arguments.json:
        out_json(answer)
    else:
        for line in answer["text"]:
            out(line)
    return FOUND if answer["found"] else NOT_FOUND
