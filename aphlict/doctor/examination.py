"""All checks, in the order in which they depend on each other."""

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from aphlict.config.rules import BLOCKED_PORTS
from aphlict.config.settings import Settings
from aphlict.doctor import local, peers
from aphlict.doctor.admin_client import local_admin
from aphlict.doctor.connector import Connector, context_for
from aphlict.doctor.delivery import DeliveryCheck, check_endpoints, check_events
from aphlict.doctor.report import CheckFailed, CheckReport
from aphlict.doctor.target import Target, local_target, with_origin
from aphlict.doctor.upgrade import upgrade
from aphlict.protocol.http import instance_path

CONFIGURATION_CHECKS = {"configuration", "certificates", "keys"}
LOOPBACK_HOSTS = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Options:
    """The options of the command. Without `target`, the first client server is checked, without a proxy."""

    target: Target | None = None
    origin: str | None = None  # of the page that connects
    ca: str | None = None  # a file of authorities to trust
    instance: str | None = None  # that the URL is expected to contain
    idle: float | None = None  # seconds without messages to try
    token: str | None = field(default=None, repr=False)


def examine(path: Path, options: Options, report: CheckReport) -> None:
    """Make all checks. After a failure, the checks that depend on it are left out."""
    try:
        settings = local.check_configuration(path, report)
        local.check_certificates(settings, report)
        local.check_keys(settings, report)
        local.check_files(settings, report)
        workers = local.check_process(settings, report)
        status = local.check_ports(settings, report)
    except CheckFailed:
        report.skip("further checks", "they depend on this one")
        return
    clocks: dict[str, float] = {}
    with suppress(CheckFailed):  # it is in the report
        _check_path(settings, options, report, clocks)
    peers.check_peers(settings, status, report, clocks)
    with suppress(CheckFailed):
        _check_machine(workers, report, clocks)


def _check_machine(workers: list[psutil.Process], report: CheckReport, clocks: dict[str, float]) -> None:
    local.check_descriptors(workers, report)
    local.check_clock(clocks, report)


def _check_path(settings: Settings, options: Options, report: CheckReport, clocks: dict[str, float]) -> None:
    """Check the path from the URL to a delivered message. Raises CheckFailed."""
    client = next(each for each in settings.servers if each.type == "client")
    target = with_origin(options.origin, options.target or local_target(client), client)
    target = replace(target, token=options.token or target.token)
    _check_url(target, options, report)
    connector = Connector(target, context_for(options.ca))
    connector.check(report)
    with report.check("upgrade") as passed:
        session, response = upgrade(connector, client, passed)
    if response.date is not None:
        clocks[target.host] = response.date - time.time()
    admin = local_admin(settings)
    try:
        delivery = DeliveryCheck(session, target, admin)
        delivery.check_delivery(report)
        hop = check_endpoints(connector, report)
        if options.idle is not None:
            delivery.check_idle(report, options.idle, settings.limits.ping_interval, hop)
        check_events(connector, admin, report, hop)
    finally:
        session.close()


def _check_url(target: Target, options: Options, report: CheckReport) -> None:
    with report.check("URL") as passed:
        if options.instance is not None and options.instance != target.instance:
            base = target.path.partition("~")[0].rstrip("/")
            raise CheckFailed(
                "instance_mismatch",
                f"{target.url} contains the instance '{target.instance}', not '{options.instance}'",
                f"add it to the path: {base}/{instance_path(options.instance)}",
            )
        if options.target is not None and target.port in BLOCKED_PORTS:
            raise CheckFailed(
                "port_blocked",
                f"browsers block port {target.port}, which is reserved for another service",
                "use another port, such as 443 or 22280",
            )
        passed.message = f"{target.url}, instance '{target.instance}'"
    if options.target is None:
        report.skip("proxy", "to check the path through it, pass the URL that browsers use (--url wss://…)")
    elif not target.tls and target.host not in LOOPBACK_HOSTS:
        report.warn(
            "URL",
            "mixed_content",
            "ws:// does not use TLS: a page loaded over https may not open it (mixed content)",
            "use wss:// unless the site itself uses plain http",
        )
