"""A server's key, certificate and chain: read, proven to belong together, and put in order."""

from dataclasses import dataclass, field

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

from aphlict.config.expectations import show
from aphlict.config.files import Read, read_file
from aphlict.config.settings import ServerSettings
from aphlict.errors import CertificateError
from aphlict.tls.memory import in_memory

Certificate = x509.Certificate


@dataclass(frozen=True)
class Identity:
    """What a server proves itself with: its key, its own certificate, then the certificates above it.

    `strangers` signed none of them, and are not sent. `in_order`: whether the files had this order already.
    """

    server: ServerSettings
    certificates: tuple[Certificate, ...]
    strangers: tuple[Certificate, ...]
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
    line, strangers = _line_up(given)
    if strangers and len(line) == 1:
        at = "ssl.chain" if server.ssl_chain is not None else "ssl.cert"
        expected = f"a chain with the certificate that signed the server's own: {show_name(line[0].issuer)}"
        raise unfit(server, at, server.ssl_chain or server.ssl_cert, expected)
    pem = _to_pem(key, line)
    _check_with_openssl(server, pem)
    in_order = line == [each for each in given if each not in strangers]
    return Identity(server, tuple(line), tuple(strangers), in_order, pem)


def show_name(name: x509.Name) -> str:
    """A subject or an issuer, printable."""
    return show(name.rfc4514_string())


def name_server(server: ServerSettings) -> str:
    """Which server of the configuration a sentence is about."""
    return f"the {server.type} server on port {server.port}"


def unfit(server: ServerSettings, key: str, value: str, expected: str) -> CertificateError:
    """The value of a key of a server cannot serve."""
    return CertificateError(f"{key} of {name_server(server)} is {show(value)}, expected {expected}")


def _read(server: ServerSettings, key: str, name: str, read: Read) -> bytes:
    try:
        return read(name)
    except OSError as error:
        raise unfit(server, key, name, f"a file that can be read ({error.strerror})") from error


def _read_key(server: ServerSettings, name: str, read: Read) -> PrivateKeyTypes:
    content = _read(server, "ssl.key", name, read)
    try:
        return load_pem_private_key(content, password=None)
    except TypeError as error:
        expected = "a key that is not encrypted: nobody can type a passphrase when the server starts"
        raise unfit(server, "ssl.key", name, expected) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise unfit(server, "ssl.key", name, "a private key in PEM") from error


def _read_certificates(server: ServerSettings, key: str, name: str, read: Read) -> list[Certificate]:
    content = _read(server, key, name, read)
    try:
        certificates = x509.load_pem_x509_certificates(content)
        for each in certificates:
            _parse_fully(each)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise unfit(server, key, name, "certificates in PEM") from error
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
    own = show_name(certificates[0].subject)
    expected = f"the key of the first certificate in ssl.cert, {own}"
    if any(matches):
        expected += f"; it is that of certificate {matches.index(True) + 1}, which has to come first"
    raise unfit(server, "ssl.key", str(server.ssl_key), expected)


def _public_bytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _line_up(given: list[Certificate]) -> tuple[list[Certificate], list[Certificate]]:
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
    """Have OpenSSL prove the pair: it also refuses keys that are too weak."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    try:
        with in_memory(pem) as path:
            context.use_certificate_chain_file(path)
            context.use_privatekey_file(path)
            context.check_privatekey()
    except SSL.Error as error:
        raise refused(server, _reason(error)) from error


def refused(server: ServerSettings, reason: str) -> CertificateError:
    """OpenSSL does not take the pair, for a reason of its own."""
    return unfit(server, "ssl.cert", str(server.ssl_cert), f"a certificate that OpenSSL accepts ({reason})")


def _reason(error: SSL.Error) -> str:
    """OpenSSL's queue of errors: (library, function, reason) each."""
    queue = error.args[0] if error.args else []
    return ", ".join(str(entry[-1]) for entry in queue) or "it gives no reason"
