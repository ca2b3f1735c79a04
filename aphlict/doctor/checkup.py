"""The whole examination, in the order in which one thing rests on another."""

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from aphlict.config.rules import BLOCKED_PORTS
from aphlict.config.settings import Settings
from aphlict.doctor import configuration, fallback, machine, peers, server
from aphlict.doctor.asking import own_admin
from aphlict.doctor.delivery import Visit
from aphlict.doctor.findings import CheckList, Trouble
from aphlict.doctor.reaching import Reaching, context_for
from aphlict.doctor.target import Target, of_server, opened_by
from aphlict.doctor.upgrading import upgrade
from aphlict.protocol.http import instance_path

CONFIGURATION = {"configuration", "certificates", "keys"}  # what fails there is the configuration
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Wishes:
    """What was asked for on the command line. `target` None: the first client server, without a proxy."""

    target: Target | None = None
    page: str | None = None  # the origin of the page that connects
    ca: str | None = None  # a file of authorities to trust
    instance: str | None = None  # the instance that the URL is meant to name
    idle: float | None = None  # seconds of silence to try
    token: str | None = field(default=None, repr=False)  # to show, where one is asked for


def examine(path: Path, wishes: Wishes, checks: CheckList) -> None:
    """Make all checks; `checks` has what they found. After a failure only what does not rest on it goes on."""
    try:
        settings = configuration.check_configuration(path, checks)
        configuration.check_certificates(settings, checks)
        configuration.check_keys(settings, checks)
        server.check_files(settings, checks)
        workers = server.check_process(settings, checks)
        status = server.check_ports(settings, checks)
    except Trouble:
        checks.skip("all else", "rests on this")
        return
    clocks: dict[str, float] = {}
    with suppress(Trouble):  # it is in the list
        _examine_way(settings, wishes, checks, clocks)
    peers.check_peers(settings, status, checks, clocks)
    with suppress(Trouble):
        _examine_machine(workers, checks, clocks)


def _examine_machine(workers: list[psutil.Process], checks: CheckList, clocks: dict[str, float]) -> None:
    machine.check_descriptors(workers, checks)
    machine.check_clock(clocks, checks)


def _examine_way(settings: Settings, wishes: Wishes, checks: CheckList, clocks: dict[str, float]) -> None:
    """From the URL to a delivered message."""
    client = next(each for each in settings.servers if each.type == "client")
    target = opened_by(wishes.page, wishes.target or of_server(client), client)
    target = replace(target, token=wishes.token or target.token)
    _check_url(target, wishes, checks)
    reaching = Reaching(target, context_for(wishes.ca))
    reaching.walk(checks)
    with checks.check("upgrade") as note:
        browser, answer = upgrade(reaching, client, note)
    if answer.date is not None:
        clocks[target.host] = answer.date - time.time()
    admin = own_admin(settings)
    try:
        visit = Visit(browser, target, admin)
        visit.check_delivery(checks)
        hop = fallback.check_pages(reaching, checks)
        if wishes.idle is not None:
            visit.check_idle(checks, wishes.idle, settings.limits.ping_interval, hop)
        fallback.check_events(reaching, admin, checks, hop)
    finally:
        browser.close()


def _check_url(target: Target, wishes: Wishes, checks: CheckList) -> None:
    with checks.check("URL") as note:
        if wishes.instance is not None and wishes.instance != target.instance:
            base = target.path.partition("~")[0].rstrip("/")
            raise Trouble(
                f"{target.url} names the instance '{target.instance}', not '{wishes.instance}'",
                f"write it into the path: {base}/{instance_path(wishes.instance)}",
            )
        if wishes.target is not None and target.port in BLOCKED_PORTS:
            raise Trouble(
                f"browsers refuse to connect to port {target.port}, which is kept for another service",
                "lead them to another port, such as 443 or 22280",
            )
        note.says = f"{target.url}, instance '{target.instance}'"
    if wishes.target is None:
        checks.skip("proxy", "give the URL that browsers use (--url wss://…) to check the way through it")
    elif not target.tls and target.host not in LOOPBACK:
        checks.doubt(
            "URL",
            "ws:// is without TLS: a page that came by https may not open it (mixed content)",
            "use wss:// unless the site itself is plain http",
        )
