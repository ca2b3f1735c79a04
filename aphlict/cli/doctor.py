"""`doctor`: walk the way of a message as a browser would, and name the first thing that is wrong."""

from argparse import Namespace
from dataclasses import asdict
from typing import Any

from aphlict.cli import configured
from aphlict.cli.console import remark, say, say_json
from aphlict.doctor.checkup import CONFIGURATION, Wishes, examine
from aphlict.doctor.findings import CheckList, Finding, Verdict
from aphlict.doctor.target import from_url, read_page
from aphlict.errors import ConfigError

WELL, UNWELL = 0, 1
MARKS = {
    Verdict.OK: "[ ok ]",
    Verdict.DOUBT: "[ ?? ]",
    Verdict.WRONG: "[FAIL]",
    Verdict.SKIPPED: "[ -- ]",
}
INDENT = " " * 7


def run(arguments: Namespace) -> int:
    """Do it: 0 where nothing is wrong, 1 where something is, 77 where that is the configuration."""
    wishes = Wishes(
        target=from_url(arguments.url) if arguments.url is not None else None,
        page=read_page(arguments.origin) if arguments.origin is not None else None,
        ca=arguments.ca,
        instance=arguments.instance,
        idle=arguments.idle,
        token=arguments.token,
    )
    path = configured.find(arguments, tell=remark if arguments.json else say)
    checks = CheckList(_ignore if arguments.json else _print)
    examine(path, wishes, checks)
    first = checks.first_wrong
    if arguments.json:
        say_json(_as_object(checks))
    else:
        _print_summary(checks)
    if first is None:
        return WELL
    return ConfigError.exit_status if first.check in CONFIGURATION else UNWELL


def _ignore(_finding: Finding) -> None:
    """With --json everything is said at once."""


def _print(finding: Finding) -> None:
    say(f"{MARKS[finding.verdict]} {finding.check}: {finding.says}")
    if finding.change:
        say(f"{INDENT}-> {finding.change}")


def _print_summary(checks: CheckList) -> None:
    first = checks.first_wrong
    doubts = sum(each.verdict is Verdict.DOUBT for each in checks.findings)
    say("")
    if first is not None:
        say(f"First thing wrong: {first.check}: {first.says}.")
        say(f"What to change: {first.change}.")
    elif doubts:
        say(f"Nothing is wrong; {doubts} thing{'s' * (doubts > 1)} marked ?? should be looked at.")
    else:
        say("Nothing is wrong.")


def _as_object(checks: CheckList) -> dict[str, Any]:
    first = checks.first_wrong
    return {
        "well": first is None,
        "first": first and _as_dict(first),
        "checks": [_as_dict(each) for each in checks.findings],
    }


def _as_dict(finding: Finding) -> dict[str, str]:
    return {**asdict(finding), "verdict": finding.verdict.value}
