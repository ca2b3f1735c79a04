"""`doctor`: send a test message along the full path and report the first failure."""

import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import asdict
from typing import Any

from aphlict.cli.console import note, out, out_json
from aphlict.cli.options import add_token, find_configuration, utf8
from aphlict.doctor.examination import CONFIGURATION_CHECKS, Options, examine
from aphlict.doctor.report import CheckReport, Finding, Verdict
from aphlict.doctor.target import parse_origin, parse_url
from aphlict.errors import ConfigError

EXAMPLES = {
    "doctor": (
        "aphlict doctor",
        "aphlict doctor --url wss://phorge.example.org/ws/",
        "aphlict doctor --url wss://phorge.example.org/ws/~acme/ --instance acme --idle",
        "aphlict doctor --url wss://phorge.example.org/ws/ --json | jq .first_failure.code",
        "aphlict token --channel 'aphlict-doctor-*' --ttl 5m | aphlict doctor --token-file -",
    )
}
DEFAULT_IDLE_SECONDS = 130.0  # a little more than twice the idle timeout of most proxies, 60 s
MAX_IDLE_SECONDS = 86400
MARKS = {
    Verdict.OK: "[ ok ]",
    Verdict.WARN: "[warn]",
    Verdict.FAILED: "[FAIL]",
    Verdict.SKIPPED: "[skip]",
}
INDENT = " " * 7


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--url",
        help="URL that browsers connect to, wss://… (default: the first client server, without a proxy)",
    )
    parser.add_argument(
        "--instance", metavar="NAME", type=utf8, help="fail unless the URL contains this instance"
    )
    parser.add_argument(
        "--idle",
        metavar="SECONDS",
        nargs="?",
        type=seconds,
        const=DEFAULT_IDLE_SECONDS,
        help=f"check that an idle connection is not closed (default: for {DEFAULT_IDLE_SECONDS:g} s)",
    )
    parser.add_argument(
        "--origin", help="origin of the page that connects, https://HOST (default: one that `origins` allows)"
    )
    add_token(parser, "token to present, valid for the channels aphlict-doctor-*")
    parser.add_argument(
        "--ca", metavar="FILE", help="trust the authorities in this file instead of the system's"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.epilog = (
        "exit status: 0 all checks passed, 1 a check failed, 77 invalid configuration or command line"
    )


def seconds(text: str) -> float:
    """Accept a positive number of seconds."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= MAX_IDLE_SECONDS:
        raise ArgumentTypeError(f"{text} is invalid, expected seconds above 0 and up to {MAX_IDLE_SECONDS}")
    return number


def run(arguments: Namespace) -> int:
    """Make all checks."""
    options = Options(
        target=parse_url(arguments.url) if arguments.url is not None else None,
        origin=parse_origin(arguments.origin) if arguments.origin is not None else None,
        ca=arguments.ca,
        instance=arguments.instance,
        idle=arguments.idle,
        token=arguments.token,
    )
    path = find_configuration(arguments, show=note if arguments.json else out)
    report = CheckReport(_ignore if arguments.json else _print)
    examine(path, options, report)
    if arguments.json:
        out_json(_as_object(report))
    else:
        _print_summary(report)
    first = report.first_failure
    if first is None:
        return 0
    return ConfigError.exit_status if first.check in CONFIGURATION_CHECKS else 1


def _ignore(_finding: Finding) -> None:
    """Print nothing: --json prints all findings at the end."""


def _print(finding: Finding) -> None:
    code = f" ({finding.code})" if finding.code else ""
    out(f"{MARKS[finding.verdict]} {finding.check}: {finding.message}{code}")
    if finding.remedy:
        out(f"{INDENT}-> {finding.remedy}")


def _print_summary(report: CheckReport) -> None:
    first = report.first_failure
    warnings = sum(each.verdict is Verdict.WARN for each in report.findings)
    out("")
    if first is not None:
        out(f"First failure: {first.check}: {first.message}.")
        out(f"What to change: {first.remedy}.")
    elif warnings:
        out(f"All checks passed, with {warnings} warning{'s' * (warnings > 1)}.")
    else:
        out("All checks passed.")


def _as_object(report: CheckReport) -> dict[str, Any]:
    first = report.first_failure
    return {
        "ok": first is None,
        "first_failure": first and _as_dict(first),
        "checks": [_as_dict(each) for each in report.findings],
    }


def _as_dict(finding: Finding) -> dict[str, str | None]:
    return {**asdict(finding), "verdict": finding.verdict.value}
