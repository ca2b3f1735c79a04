"""What there is to say of certificates that can serve: how long they will, and what browsers will make of them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from aphlict.config.files import Read, read_file
from aphlict.config.settings import ServerSettings
from aphlict.tls.certificates import Certificate, Identity, load, name_server, show_name

RENEWAL = timedelta(days=30)  # whoever renews by machine has done so by then, and is not warned in vain


@dataclass(frozen=True)
class Findings:
    """Sentences for the operator, and when the first certificate of the chain ends.

    Errors are what browsers refuse: `check` fails, a start warns loudly. Warnings can wait a little.
    """

    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    not_after: datetime


def prove(server: ServerSettings, now: datetime, read: Read = read_file) -> Findings:
    """Read and examine the certificates of a TLS server. Raises CertificateError where they cannot serve."""
    return examine(load(server, read), now)


def examine(identity: Identity, now: datetime) -> Findings:
    """Say what is wrong with certificates that can serve; `now` has a time zone."""
    dated = _dated(identity)
    expired = (_check_dates(each, identity, now) for each in dated)
    errors = [*_find_strangers(identity), *filter(None, expired)]
    ending = (_check_end(each, identity, now) for each in dated)
    warnings = [*_find_disorder(identity), *filter(None, ending)]
    return Findings(tuple(errors), tuple(warnings), min(each.not_valid_after_utc for each in dated))


def _dated(identity: Identity) -> list[Certificate]:
    """All but a root that is sent along: a browser looks at its own copy of it."""
    own, *above = identity.certificates
    return [own, *(each for each in above if each.issuer != each.subject)]


def _find_strangers(identity: Identity) -> list[str]:
    reason = "signed no other certificate of its chain and is not sent: remove it"
    return [f"{_name(each, identity)} {reason}" for each in identity.strangers]


def _find_disorder(identity: Identity) -> list[str]:
    if identity.in_order:
        return []
    order = ", then ".join(show_name(each.subject) for each in identity.certificates)
    return [f"the certificates of {name_server(identity.server)} are not in order: they are sent as {order}"]


def _check_dates(certificate: Certificate, identity: Identity, now: datetime) -> str | None:
    starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= ends:
        return f"{_name(certificate, identity)} expired on {_show_time(ends)}: browsers refuse it, renew it"
    if now < starts:
        return f"{_name(certificate, identity)} is not valid before {_show_time(starts)}: browsers refuse it"
    return None


def _check_end(certificate: Certificate, identity: Identity, now: datetime) -> str | None:
    ends = certificate.not_valid_after_utc
    if not now < ends <= now + RENEWAL:
        return None
    days = (ends - now).days
    left = "in less than a day" if days == 0 else "in 1 day" if days == 1 else f"in {days} days"
    return f"{_name(certificate, identity)} ends on {_show_time(ends)}, {left}: renew it"


def _name(certificate: Certificate, identity: Identity) -> str:
    return f"the certificate {show_name(certificate.subject)} of {name_server(identity.server)}"


def _show_time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
