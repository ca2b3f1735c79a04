"""The configuration: whether it can be read, and what is to be said of its certificates."""

from datetime import datetime, timezone
from pathlib import Path

from aphlict.config import loader
from aphlict.config.settings import Settings
from aphlict.doctor.findings import CheckList, Trouble
from aphlict.errors import CertificateError, ConfigError
from aphlict.tls.certificates import inspect_server
from aphlict.tokens.key_set import load


def check_configuration(path: Path, checks: CheckList) -> Settings:
    """Read it. Raises Trouble."""
    with checks.check("configuration") as note:
        try:
            settings = loader.load(path)
        except ConfigError as error:
            raise Trouble(str(error), "correct the file; docs/configuration.md lists every key") from error
        note.says = f"{path} is good"
    return settings


def check_certificates(settings: Settings, checks: CheckList) -> None:
    """Prove the certificates of every TLS server. Raises Trouble."""
    servers = [server for server in settings.servers if server.tls]
    if not servers:
        return
    warnings: list[str] = []
    with checks.check("certificates") as note:
        for server in servers:
            try:
                findings = inspect_server(server, datetime.now(timezone.utc))
            except CertificateError as error:
                raise Trouble(
                    str(error), "correct the files; docs/configuration.md says what goes into each"
                ) from error
            if findings.errors:
                raise Trouble(findings.errors[0], "correct the files, then: aphlict restart")
            warnings += findings.warnings
        note.says = f"{len(servers)} server{'s' * (len(servers) != 1)} can prove who it is"
    for sentence in warnings:
        checks.doubt("certificates", sentence, "correct or renew the files, then send SIGHUP")


def check_keys(settings: Settings, checks: CheckList) -> None:
    """Read the keys of every server that asks for tokens. Raises Trouble."""
    servers = [server for server in settings.servers if server.auth_keys]
    if not servers:
        return
    with checks.check("keys") as note:
        try:
            count = sum(len(list(load(server) or ())) for server in servers)
        except ConfigError as error:
            change = "correct the file; docs/authentication.md says what goes into it"
            raise Trouble(str(error), change) from error
        note.says = f"tokens are proven with {count} key{'s' * (count != 1)}"
