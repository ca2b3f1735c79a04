"""TLS contexts: what a server offers, and whom a peer's client trusts."""

import ssl

from aphlict.config.expectations import show
from aphlict.config.settings import ServerSettings
from aphlict.errors import CertificateError
from aphlict.tls.certificates import load, refused
from aphlict.tls.memory import in_memory

HTTP_1_1 = ["http/1.1"]  # a WebSocket over HTTP/2 (RFC 8441) is another protocol


def server_context(server: ServerSettings) -> ssl.SSLContext:
    """Make the context of a TLS server. Raises CertificateError where its files cannot serve.

    Key, certificate and chain come from three files, and `load_cert_chain` takes the chain from the
    certificate's own file only: they are put together in memory, in the order that was proven.
    """
    identity = load(server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 1  # OpenSSL sends two; a browser that comes back takes one
    context.set_alpn_protocols(HTTP_1_1)
    try:
        with in_memory(identity.pem) as path:
            context.load_cert_chain(path)
    except ssl.SSLError as error:  # Python's OpenSSL may be another, and stricter, than pyOpenSSL's
        raise refused(server, error.reason or str(error)) from error
    return context


def client_context(ca: str | None) -> ssl.SSLContext:
    """Make the context for a peer: trust `ssl.ca`'s file alone, or what the system trusts.

    Raises CertificateError where the file has no certificates.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "reason", None) or error.strerror
        expected = f"a file of certificates in PEM ({reason})"
        raise CertificateError(f"ssl.ca is {show(ca)}, expected {expected}") from error
