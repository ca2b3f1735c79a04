"""A server's key, certificate and chain: read, proven to belong together, and put in order."""

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


@contextmanager
def in_memory(content: bytes) -> Iterator[str]:
    """A path under which this process, and no other user's, can read the content until the end of the block.

    A private key must not be written to a disk, not even for a moment; and a temporary folder that can be
    written to is not a thing that a server can count on. `/proc/self/fd` stays readable for a process that
    has given up root.
    """
    descriptor = os.memfd_create("aphlict-tls", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"


Certificate = x509.Certificate


@dataclass(frozen=True)
class Identity:
    """What a server proves itself with: its key, its own certificate, then the certificates above it.

    `unrelated` signed none of them, and are not sent. `in_order`: whether the files had this order already.
    """

    server: ServerSettings
    certificates: tuple[Certificate, ...]
    unrelated: tuple[Certificate, ...]
    in_order: bool
    pem: bytes = field(repr=False)  # the key and the certificates to send: what is proven is what is used


def load(server: ServerSettings, read: Read = read_file) -> Identity:
    """Read the files of a TLS server. Raises CertificateError where they cannot serve.

    The chain may stand in `ssl.cert` after the certificate, in `ssl.chain`, or in both.
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
    """A subject or an issuer, printable."""
    return show(name.rfc4514_string())


def describe_server(server: ServerSettings) -> str:
    """Which server of the configuration a sentence is about."""
    return f"the {server.type} server on port {server.port}"


def unusable(server: ServerSettings, key: str, value: str, expected: str) -> CertificateError:
    """The value of a key of a server cannot serve."""
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
        expected = "a key that is not encrypted: nobody can type a passphrase when the server starts"
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
    """Raise ValueError now, for what is read only when it is asked for."""
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
        expected += f"; it is that of certificate {matches.index(True) + 1}, which has to come first"
    raise unusable(server, "ssl.key", str(server.ssl_key), expected)


def _public_bytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _order_chain(given: list[Certificate]) -> tuple[list[Certificate], list[Certificate]]:
    """Line up certificates so that each signed one before it, the last where it can be; and tell the rest."""
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
        return False  # another key, an algorithm that nobody trusts, another name, a key that cannot sign
    return True


def _to_pem(key: PrivateKeyTypes, certificates: list[Certificate]) -> bytes:
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return secret + b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def _check_with_openssl(server: ServerSettings, pem: bytes) -> None:
    """Have OpenSSL check the pair: it also refuses keys that are too weak."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    try:
        with in_memory(pem) as path:
            context.use_certificate_chain_file(path)
            context.use_privatekey_file(path)
            context.check_privatekey()
    except SSL.Error as error:
        raise rejected_by_openssl(server, _reason(error)) from error


def rejected_by_openssl(server: ServerSettings, reason: str) -> CertificateError:
    """OpenSSL does not take the pair, for a reason of its own."""
    return unusable(
        server, "ssl.cert", str(server.ssl_cert), f"a certificate that OpenSSL accepts ({reason})"
    )


def _reason(error: SSL.Error) -> str:
    """OpenSSL's queue of errors: (library, function, reason) each."""
    queue = error.args[0] if error.args else []
    return ", ".join(str(entry[-1]) for entry in queue) or "it gives no reason"


RENEWAL_PERIOD = timedelta(
    days=30
)  # whoever renews by machine has done so by then, and is not warned in vain


@dataclass(frozen=True)
class CertificateReport:
    """Sentences for the operator, and when the first certificate of the chain ends.

    Errors are what browsers refuse: `check` fails, a start warns loudly. Warnings can wait a little.
    """

    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    not_after: datetime


def inspect_server(server: ServerSettings, now: datetime, read: Read = read_file) -> CertificateReport:
    """Read and inspect the certificates of a TLS server. Raises CertificateError where they cannot serve."""
    return inspect(load(server, read), now)


def inspect(identity: Identity, now: datetime) -> CertificateReport:
    """Say what is wrong with certificates that can serve; `now` has a time zone."""
    dated = _dated(identity)
    expired = (_check_dates(each, identity, now) for each in dated)
    errors = [*_find_unrelated(identity), *filter(None, expired)]
    ending = (_check_expiry_soon(each, identity, now) for each in dated)
    warnings = [*_find_wrong_order(identity), *filter(None, ending)]
    return CertificateReport(tuple(errors), tuple(warnings), min(each.not_valid_after_utc for each in dated))


def _dated(identity: Identity) -> list[Certificate]:
    """All but a root that is sent along: a browser looks at its own copy of it."""
    own, *above = identity.certificates
    return [own, *(each for each in above if each.issuer != each.subject)]


def _find_unrelated(identity: Identity) -> list[str]:
    reason = "signed no other certificate of its chain and is not sent: remove it"
    return [f"{_name(each, identity)} {reason}" for each in identity.unrelated]


def _find_wrong_order(identity: Identity) -> list[str]:
    if identity.in_order:
        return []
    order = ", then ".join(format_name(each.subject) for each in identity.certificates)
    return [
        f"the certificates of {describe_server(identity.server)} are not in order: they are sent as {order}"
    ]


def _check_dates(certificate: Certificate, identity: Identity, now: datetime) -> str | None:
    starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= ends:
        return f"{_name(certificate, identity)} expired on {_show_time(ends)}: browsers refuse it, renew it"
    if now < starts:
        return f"{_name(certificate, identity)} is not valid before {_show_time(starts)}: browsers refuse it"
    return None


def _check_expiry_soon(certificate: Certificate, identity: Identity, now: datetime) -> str | None:
    ends = certificate.not_valid_after_utc
    if not now < ends <= now + RENEWAL_PERIOD:
        return None
    days = (ends - now).days
    left = "in less than a day" if days == 0 else "in 1 day" if days == 1 else f"in {days} days"
    return f"{_name(certificate, identity)} ends on {_show_time(ends)}, {left}: renew it"


def _name(certificate: Certificate, identity: Identity) -> str:
    return f"the certificate {format_name(certificate.subject)} of {describe_server(identity.server)}"


def _show_time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
