"""The certificate authorities in `ssl.ca` that an admin server trusts for client certificates."""

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from aphlict.config.files import Read, read_file
from aphlict.config.settings import ServerSettings
from aphlict.errors import CertificateError
from aphlict.tls.certificates import format_name, unusable


class Authorities:
    """Trusted certificate authorities."""

    def __init__(self, certificates: Sequence[x509.Certificate]) -> None:
        self.pem = "".join(each.public_bytes(Encoding.PEM).decode() for each in certificates)
        self.certificates = frozenset(certificates)
        self._store = crypto.X509Store()
        for each in certificates:
            self._store.add_cert(crypto.X509.from_cryptography(each))

    def include(self, others: "Authorities") -> bool:
        """Return whether all of the others are among these."""
        return self.certificates >= others.certificates

    def accept(self, certificate: bytes) -> bool:
        """Return whether a certificate (DER) is valid now and signed by one of these.

        Intermediate certificates, which a client sends in its handshake, are not known here: a certificate below one
        is not accepted.
        """
        shown = crypto.X509.from_cryptography(x509.load_der_x509_certificate(certificate))
        try:
            crypto.X509StoreContext(self._store, shown).verify_certificate()
        except crypto.X509StoreContextError:
            return False
        return True


def load_authorities(server: ServerSettings, name: str, read: Read = read_file) -> Authorities:
    """Read the authorities in a file. Raises CertificateError."""
    try:
        certificates = x509.load_pem_x509_certificates(read(name))
    except OSError as error:
        raise _unusable(server, name, f"a file that can be read ({error.strerror})") from error
    except ValueError as error:
        raise _unusable(server, name, "CA certificates in PEM") from error
    for each in certificates:
        if not _is_authority(each):
            expected = "CA certificates, which sign those of clients"
            raise _unusable(server, name, f"{expected}: {format_name(each.subject)} is not one")
    return Authorities(certificates)


def _is_authority(certificate: x509.Certificate) -> bool:
    """Return whether it is a CA certificate, or self-signed and thus a client's own."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return certificate.issuer == certificate.subject
    return constraints.ca or certificate.issuer == certificate.subject


def _unusable(server: ServerSettings, name: str, expected: str) -> CertificateError:
    return unusable(server, "ssl.ca", name, expected)
