"""A server's key, certificate and chain: read, checked to match, put in order; and a report on their validity."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from OpenSSL import SSL

from aphlict.config.descriptions import show
from aphlict.config.files import Read, read_file
from aphlict.config.settings import ServerSettings
from aphlict.errors import CertificateError
from aphlict.log_events import (
    CERTIFICATE_EXPIRED,
    CERTIFICATE_EXPIRES,
    CERTIFICATE_NOT_YET_VALID,
    CERTIFICATE_UNRELATED,
    CERTIFICATES_OUT_OF_ORDER,
    LogEvent,
    Notice,
)


@contextmanager
def in_memory(content: bytes) -> Iterator[str]:
    """Return a context manager for a path from which only this process can read the content.

    A private key must never be written to disk, and a server cannot rely on a writable temporary folder.
    `/proc/self/fd` stays readable for a process that has dropped root.
    """
    descriptor = os.memfd_create("aphlict-tls", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"


Certificate = x509.Certificate


@dataclass(frozen=True)
class Identity:
    """The key of a server, its certificate, then the certificates above it.

    `unrelated` are certificates that signed none of these and are not sent. `in_order`: the files had this order.
    """

    server: ServerSettings
    certificates: tuple[Certificate, ...]
    unrelated: tuple[Certificate, ...]
    in_order: bool
    pem: bytes = field(repr=False)  # the key and the certificates to send, exactly as checked


def load(server: ServerSettings, read: Read = read_file) -> Identity:
    """Read the files of a TLS server. Raises CertificateError if they are not usable.

    The chain may be in `ssl.cert` after the certificate, in `ssl.chain`, or in both.
    """
    assert server.ssl_key is not None
    assert server.ssl_cert is not None
    key = _read_key(server, server.ssl_key, read)
    given = _read_certificates(server, "ssl.cert", server.ssl_cert, read)
    if server.ssl_chain is not None:
        given += _read_certificates(server, "ssl.chain", server.ssl_chain, read)
    given = list(dict.fromkeys(given))
    _check_match(server, key, given)
    line, unrelated = _order_chain(given)
    if unrelated and len(line) == 1:
        at = "ssl.chain" if server.ssl_chain is not None else "ssl.cert"
        expected = f"a chain with the certificate that signed the server's own: {format_name(line[0].issuer)}"
        raise unusable(server, at, server.ssl_chain or server.ssl_cert, expected)
    pem = _to_pem(key, line)
    _check_with_openssl(server, pem)
    in_order = line == [each for each in given if each not in unrelated]
    return Identity(server, tuple(line), tuple(unrelated), in_order, pem)


def format_name(name: x509.Name) -> str:
    """Return a subject or an issuer, printable."""
    return show(name.rfc4514_string())


def describe_server(server: ServerSettings) -> str:
    """Return a description of a server for messages."""
    return f"the {server.type} server on port {server.port}"


def unusable(server: ServerSettings, key: str, value: str, expected: str) -> CertificateError:
    """Return the error for a file that is not usable."""
    return CertificateError(f"{key} of {describe_server(server)} is {show(value)}, expected {expected}")


def _read(server: ServerSettings, key: str, name: str, read: Read) -> bytes:
    try:
        return read(name)
    except OSError as error:
        raise unusable(server, key, name, f"a file that can be read ({error.strerror})") from error


def _read_key(server: ServerSettings, name: str, read: Read) -> PrivateKeyTypes:
    content = _read(server, "ssl.key", name, read)
    try:
        return load_pem_private_key(content, password=None)
    except TypeError as error:
        expected = "a key without a passphrase: the server cannot ask for one"
        raise unusable(server, "ssl.key", name, expected) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise unusable(server, "ssl.key", name, "a private key in PEM") from error


def _read_certificates(server: ServerSettings, key: str, name: str, read: Read) -> list[Certificate]:
    content = _read(server, key, name, read)
    try:
        certificates = x509.load_pem_x509_certificates(content)
        for each in certificates:
            _parse_fully(each)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise unusable(server, key, name, "certificates in PEM") from error
    return certificates


def _parse_fully(certificate: Certificate) -> None:
    """Raise ValueError now for fields that are otherwise parsed on first access."""
    _public_bytes(certificate.public_key())
    _ = certificate.subject.rfc4514_string(), certificate.issuer.rfc4514_string()
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc


def _check_match(server: ServerSettings, key: PrivateKeyTypes, certificates: list[Certificate]) -> None:
    public = _public_bytes(key.public_key())
    matches = [_public_bytes(each.public_key()) == public for each in certificates]
    if matches[0]:
        return
    own = format_name(certificates[0].subject)
    expected = f"the key of the first certificate in ssl.cert, {own}"
    if any(matches):
        expected += f"; it is that of certificate {matches.index(True) + 1}, which must come first"
    raise unusable(server, "ssl.key", str(server.ssl_key), expected)


def _public_bytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _order_chain(given: list[Certificate]) -> tuple[list[Certificate], list[Certificate]]:
    """Order certificates so that each signed one before it. Returns these and the unrelated ones."""
    line, rest = given[:1], given[1:]
    while (found := _find_issuer(line, rest)) is not None:
        line.append(found)
        rest.remove(found)
    return line, rest


def _find_issuer(line: list[Certificate], rest: list[Certificate]) -> Certificate | None:
    return next((each for signed in reversed(line) for each in rest if _has_signed(each, signed)), None)


def _has_signed(issuer: Certificate, certificate: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False  # another key or name, an untrusted algorithm, a key that cannot sign
    return True


def _to_pem(key: PrivateKeyTypes, certificates: list[Certificate]) -> bytes:
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return secret + b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def _check_with_openssl(server: ServerSettings, pem: bytes) -> None:
    """Let OpenSSL check the pair: it also rejects weak keys."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    try:
        with in_memory(pem) as path:
            context.use_certificate_chain_file(path)
            context.use_privatekey_file(path)
            context.check_privatekey()
    except SSL.Error as error:
        raise rejected_by_openssl(server, _reason(error)) from error


def rejected_by_openssl(server: ServerSettings, reason: str) -> CertificateError:
    """Return the error for a pair that OpenSSL rejects."""
    return unusable(
        server, "ssl.cert", str(server.ssl_cert), f"a certificate that OpenSSL accepts ({reason})"
    )


def _reason(error: SSL.Error) -> str:
    """Join OpenSSL's error queue: (library, function, reason) each."""
    queue = error.args[0] if error.args else []
    return ", ".join(str(entry[-1]) for entry in queue) or "no reason given"


RENEWAL_PERIOD = timedelta(days=30)  # automatic renewal happens before that, so it causes no warning


@dataclass(frozen=True)
class CertificateReport:
    """Problems for the operator, and when the first certificate of the chain expires.

    Browsers reject certificates with errors: `check` fails, `start` logs an error. Warnings are less urgent.
    """

    errors: tuple[Notice, ...]
    warnings: tuple[Notice, ...]
    not_after: datetime


def inspect_server(server: ServerSettings, now: datetime, read: Read = read_file) -> CertificateReport:
    """Read and inspect the certificates of a TLS server. Raises CertificateError if they are not usable."""
    return inspect(load(server, read), now)


def inspect(identity: Identity, now: datetime) -> CertificateReport:
    """Return the problems of usable certificates; `now` is timezone-aware."""
    dated = _dated(identity)
    expired = (_check_dates(each, identity, now) for each in dated)
    errors = [*_find_unrelated(identity), *filter(None, expired)]
    ending = (_check_expiry_soon(each, identity, now) for each in dated)
    warnings = [*_find_wrong_order(identity), *filter(None, ending)]
    return CertificateReport(tuple(errors), tuple(warnings), first_expiry(identity))


def first_expiry(identity: Identity) -> datetime:
    """Return when the first certificate expires that browsers check."""
    return min(each.not_valid_after_utc for each in _dated(identity))


def _dated(identity: Identity) -> list[Certificate]:
    """Return all but a root certificate: browsers use their own copy of it."""
    own, *above = identity.certificates
    return [own, *(each for each in above if each.issuer != each.subject)]


def _find_unrelated(identity: Identity) -> list[Notice]:
    return [_notice(CERTIFICATE_UNRELATED, each, identity) for each in identity.unrelated]


def _find_wrong_order(identity: Identity) -> list[Notice]:
    if identity.in_order:
        return []
    order = ", then ".join(format_name(each.subject) for each in identity.certificates)
    return [Notice(CERTIFICATES_OUT_OF_ORDER, describe_server(identity.server), order)]


def _check_dates(certificate: Certificate, identity: Identity, now: datetime) -> Notice | None:
    starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= ends:
        return _notice(CERTIFICATE_EXPIRED, certificate, identity, _show_time(ends))
    if now < starts:
        return _notice(CERTIFICATE_NOT_YET_VALID, certificate, identity, _show_time(starts))
    return None


def _check_expiry_soon(certificate: Certificate, identity: Identity, now: datetime) -> Notice | None:
    ends = certificate.not_valid_after_utc
    if not now < ends <= now + RENEWAL_PERIOD:
        return None
    days = (ends - now).days
    left = "in less than a day" if days == 0 else "in 1 day" if days == 1 else f"in {days} days"
    return _notice(CERTIFICATE_EXPIRES, certificate, identity, _show_time(ends), left)


def _notice(event: LogEvent, certificate: Certificate, identity: Identity, *values: str) -> Notice:
    return Notice(event, format_name(certificate.subject), describe_server(identity.server), *values)


def _show_time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
