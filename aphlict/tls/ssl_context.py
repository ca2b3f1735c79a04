"""TLS contexts for servers and for connections to peers."""

import ssl
from contextlib import nullcontext

from aphlict.config.descriptions import show
from aphlict.config.files import Read, read_file
from aphlict.config.settings import ServerSettings
from aphlict.errors import CertificateError
from aphlict.tls.authorities import load_authorities
from aphlict.tls.certificates import Identity, in_memory, load, rejected_by_openssl

HTTP_1_1 = ["http/1.1"]  # ALPN; WebSockets over HTTP/2 (RFC 8441) are not supported


def server_context(server: ServerSettings, read: Read = read_file) -> ssl.SSLContext:
    """Return the context of a TLS server. Raises CertificateError if its files are not usable."""
    return identity_context(load(server, read), read)


def identity_context(identity: Identity, read: Read = read_file) -> ssl.SSLContext:
    """Return the context of a TLS server whose certificates have been read. Raises CertificateError.

    `load_cert_chain` reads the chain from the certificate's file only, so key, certificate and chain of three files
    are combined in memory, in the order that was checked.
    """
    server = identity.server
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 1  # OpenSSL sends two; a client that reconnects uses one
    context.set_alpn_protocols(HTTP_1_1)
    try:
        with in_memory(identity.pem) as path:
            context.load_cert_chain(path)
    except ssl.SSLError as error:  # Python's OpenSSL may differ from pyOpenSSL's and be stricter
        raise rejected_by_openssl(server, error.reason or str(error)) from error
    if server.ssl_ca is not None:
        context.load_verify_locations(cadata=load_authorities(server, server.ssl_ca, read).pem)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    ca: str | None, cert: str | None = None, key: str | None = None, read: Read = read_file
) -> ssl.SSLContext:
    """Return the context for connections to a peer, which trusts the file `ca` only, or else the system's CAs.

    `cert` and `key` are the client certificate, sent if the peer requests one. Raises CertificateError.
    """
    try:
        with in_memory(read(ca)) if ca is not None else nullcontext() as path:
            context = ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        expected = f"a file of certificates in PEM ({_reason(error)})"
        raise CertificateError(f"ssl.ca is {show(ca)}, expected {expected}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # some builds of Python leave the default to OpenSSL
    if cert is not None:
        add_client_certificate(context, cert, key, read)
    return context


def add_client_certificate(
    context: ssl.SSLContext, cert: str, key: str | None, read: Read = read_file
) -> None:
    """Add a client certificate to a context. Raises CertificateError."""
    try:
        with in_memory(read(cert)) as chain, in_memory(read(key or cert)) as secret:
            context.load_cert_chain(chain, secret, _no_passphrase)
    except (OSError, ValueError) as error:
        expected = f"a certificate with its key in ssl.key, {show(key)}, both readable ({_reason(error)})"
        raise CertificateError(f"ssl.cert is {show(cert)}, expected {expected}") from error


def unverified_context() -> ssl.SSLContext:
    """Make a client's context that accepts any certificate.

    For this machine's own server, whose certificate has its public name, and to look at a certificate.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _no_passphrase() -> str:
    """Prevent OpenSSL from prompting on the terminal."""
    return ""


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
