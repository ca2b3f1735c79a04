"""The command line: every command, its options and examples."""

import math
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from aphlict import __version__
from aphlict.config.files import is_header_safe
from aphlict.errors import UsageError
from aphlict.tokens.grant import MAX_LIFETIME

IDLE = 130.0  # seconds of silence that `doctor --idle` tries: twice the 60 s of most proxies, and a little
MAX_PORT = 65535
MAX_SECONDS = 86400
MAX_TOKEN = 64 * 1024  # letters: far more than any server reads


class Parser(ArgumentParser):
    """Raises UsageError where argparse would exit with its own status."""

    def error(self, message: str) -> NoReturn:
        """Refuse a command line."""
        raise UsageError(f"{message} (see {self.prog} --help)")


class Command(NamedTuple):
    """One command: what it does, what it takes, and how it is used."""

    summary: str
    examples: str
    add_options: Callable[[Parser], None] | None = None


def parse(words: Sequence[str] | None) -> Namespace:
    """Read a command line. Raises UsageError; `--help` and `--version` print and exit."""
    parser = Parser(
        prog="aphlict",
        description="A notification server: one POST reaches every browser that listens.",
        epilog="`aphlict COMMAND --help` has examples. Exit status: 0 done, 77 usage or configuration error, 1 else.",
    )
    parser.add_argument("--version", action="version", version=f"aphlict {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"examples:\n{command.examples}",
            formatter_class=RawDescriptionHelpFormatter,
        )
        sub.add_argument(
            "--config",
            metavar="FILE",
            help="the configuration (default: aphlict.custom.json in conf/aphlict, else aphlict.default.json)",
        )
        if command.add_options is not None:
            command.add_options(sub)
    arguments = parser.parse_args(words)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        raise UsageError("no COMMAND is given")
    return arguments


def _start_options(parser: Parser) -> None:
    parser.add_argument(
        "--foreground", action="store_true", help="do not go to the background (for systemd, containers)"
    )


def _stop_options(parser: Parser) -> None:
    parser.add_argument(
        "--pidfile",
        metavar="FILE",
        help="the server that wrote this file, whatever became of its configuration",
    )


def _status_options(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def _channels(parser: Parser, many: str) -> None:
    parser.add_argument("channels", metavar="CHANNEL", nargs=many, help="a channel's name")
    parser.add_argument("--instance", metavar="NAME", type=utf8, help="the instance (default: default)")


def _token_to_show(parser: Parser, what: str) -> None:
    token = parser.add_mutually_exclusive_group()
    token.add_argument(
        "--token", metavar="JWT", type=jwt, help=f"{what}; the list of processes shows it to all users"
    )
    token.add_argument(
        "--token-file",
        dest="token",
        metavar="FILE",
        type=jwt_in,
        help="a file that holds that token; - is standard input",
    )


def _listen_options(parser: Parser) -> None:
    _channels(parser, "+")
    parser.add_argument(
        "--url", help="the client server, ws:// or wss:// (default: the configuration's first)"
    )
    parser.add_argument("--insecure", action="store_true", help="take any certificate from a wss:// server")
    _token_to_show(parser, "the token to show, where the server asks for one")


def _doctor_options(parser: Parser) -> None:
    parser.add_argument("--url", metavar="URL", help="where browsers connect to, through the proxy: wss://…")
    parser.add_argument(
        "--instance", metavar="NAME", type=utf8, help="the instance that the URL is meant to name"
    )
    parser.add_argument(
        "--idle",
        metavar="SECONDS",
        nargs="?",
        type=seconds,
        const=IDLE,
        help=f"also see whether a silent connection is left alone ({IDLE:g} s by default)",
    )
    parser.add_argument(
        "--origin", help="the page that connects, https://HOST (default: one that `origins` lets in)"
    )
    _token_to_show(
        parser, "the token to show, for the channels aphlict-doctor-*, where the server asks for one"
    )
    parser.add_argument(
        "--ca", metavar="FILE", help="trust the authorities in this file, not those of the system"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def _notify_options(parser: Parser) -> None:
    _channels(parser, "*")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--message", metavar="TEXT", help='publish {"type": "notification", "text": TEXT}')
    what.add_argument(
        "--data", metavar="JSON", help="publish this object; it may name its subscribers itself"
    )


def port(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise ArgumentTypeError(f"{text} is no port, expected a whole number from 0 to {MAX_PORT}")
    return int(text)


def seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= MAX_SECONDS:
        raise ArgumentTypeError(f"{text} is no time, expected seconds, above 0 and at most {MAX_SECONDS}")
    return number


def utf8(text: str) -> str:
    """What goes into a URL: the bytes of a command line need not be text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ArgumentTypeError(f"{text!a} is no text in UTF-8") from error
    return text


def jwt(text: str) -> str:
    if not is_header_safe(text):
        raise ArgumentTypeError("expected a token: letters, digits and signs, without spaces")
    return text


def jwt_in(path: str) -> str:
    try:
        with open(0 if path == "-" else path, encoding="ascii", closefd=path != "-") as file:
            text = file.read(MAX_TOKEN + 1).strip()
    except (
        OSError,
        ValueError,
    ) as error:  # ValueError: not ASCII; a NUL in the name
        why = error.strerror if isinstance(error, OSError) else "not ASCII"
        raise ArgumentTypeError(f"{path} cannot be read ({why}), expected a file with a token") from error
    if not is_header_safe(text) or len(text) > MAX_TOKEN:
        raise ArgumentTypeError(f"{path} holds no token, or more than one")
    return text


def duration(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd]?)", text)
    if found is None:
        raise ArgumentTypeError(f"{text} is no time, expected one such as 90s, 15m, 1h or 30d")
    span = int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]
    if span > MAX_LIFETIME:
        raise ArgumentTypeError(f"{text} is more than {MAX_LIFETIME // 86400}d, for which a token may hold")
    return span


def _token_options(parser: Parser) -> None:
    parser.add_argument(
        "--channel",
        dest="channels",
        metavar="NAME",
        action="append",
        required=True,
        help="a channel that may be listened to; 'PREFIX*' is all that begin so. May be repeated",
    )
    parser.add_argument(
        "--instance", metavar="NAME", type=utf8, help="the instance that it is for (default: default)"
    )
    parser.add_argument("--sub", metavar="NAME", help="whom it is for: the server's log names it in debug")
    parser.add_argument(
        "--expires",
        metavar="TIME",
        type=duration,
        default=3600,
        help="how long it holds: 90s, 15m, 1h, 30d (default: 1h)",
    )
    parser.add_argument(
        "--key",
        metavar="KEY",
        help="a file with a private key or a secret, or the ID of a secret in the configuration's auth.keys "
        "(default: its first secret)",
    )
    parser.add_argument(
        "--audience", metavar="NAME", help="'aud' (default: auth.audience of the key's server)"
    )


def _demo_options(parser: Parser) -> None:
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="for whom: 0.0.0.0 is everybody (default: this machine alone)",
    )
    parser.add_argument(
        "--port", type=port, default=0, metavar="N", help="where the page is (default: a free port)"
    )
    parser.add_argument(
        "--client-port",
        type=port,
        default=0,
        metavar="N",
        help="where browsers connect (default: a free port)",
    )


COMMANDS = {
    "start": Command(
        "start the server in the background",
        "  aphlict start\n  aphlict start --config /etc/aphlict/aphlict.json\n  aphlict start --foreground",
        _start_options,
    ),
    "stop": Command(
        "ask the server to finish, and end it if it does not",
        "  aphlict stop\n  aphlict stop --config /etc/aphlict/aphlict.json\n"
        "  aphlict stop --pidfile /run/aphlict/aphlict.pid",
        _stop_options,
    ),
    "restart": Command("stop the server if it runs, then start it", "  aphlict restart"),
    "status": Command(
        "say whether the server runs, and how it does",
        "  aphlict status\n  aphlict status --json | jq .connections",
        _status_options,
    ),
    "debug": Command(
        "run the server in the foreground and trace every event (Ctrl-C ends it)",
        "  aphlict debug\n  aphlict debug --config test.json 2> trace.txt",
    ),
    "check": Command(
        "check a configuration, its certificates and its ports without starting",
        "  aphlict check\n  aphlict check --config new.json && cp new.json /etc/aphlict/aphlict.json",
    ),
    "doctor": Command(
        "walk the way of a message as a browser would, and name the first thing that is wrong",
        "  aphlict doctor\n"
        "  aphlict doctor --url wss://phorge.example.org/ws/\n"
        "  aphlict doctor --url wss://phorge.example.org/ws/~acme/ --instance acme --idle\n"
        "  aphlict doctor --url wss://phorge.example.org/ws/ --json | jq .first\n"
        "  aphlict token --channel 'aphlict-doctor-*' --expires 5m | aphlict doctor --token-file -\n"
        "\nexit status: 0 nothing is wrong, 1 something is, 77 the configuration or the command line is",
        _doctor_options,
    ),
    "listen": Command(
        "subscribe like a browser and print what arrives, one JSON object a line",
        "  aphlict listen demo\n  aphlict listen --url wss://example.com/ws/ PHID-USER-1234 | jq .type\n"
        "  aphlict token --channel demo | aphlict listen --token-file - demo",
        _listen_options,
    ),
    "notify": Command(
        "publish a message and print the receipt",
        "  aphlict notify demo --message hello\n"
        """  aphlict notify demo other --data '{"type": "refresh", "key": 7}'""",
        _notify_options,
    ),
    "token": Command(
        "make a token that lets a browser listen, and print it",
        "  aphlict token --channel demo\n"
        "  aphlict token --channel PHID-USER-1234 --channel 'PHID-TASK-*' --sub alice --expires 15m\n"
        "  aphlict token --channel demo --instance acme --key 2026-01\n"
        "  aphlict token --channel demo --key /etc/aphlict/private.pem",
        _token_options,
    ),
    "demo": Command(
        "run a server for trying out, with a page that subscribes and publishes",
        "  aphlict demo\n  aphlict demo --listen 0.0.0.0 --port 8080 --client-port 22280",
        _demo_options,
    ),
}
