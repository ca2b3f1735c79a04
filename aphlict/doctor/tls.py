"""Certificates of the client port: expiry, and why one is not trusted."""

import ssl
from typing import Any

from cryptography import x509

from aphlict.doctor.report import CheckFailed
from aphlict.doctor.target import Target


def certificate_end(sock: ssl.SSLSocket) -> float | None:
    """Return the notAfter of the peer's certificate in seconds since 1970, None if it was not verified."""
    certificate: dict[str, Any] = sock.getpeercert() or {}
    return ssl.cert_time_to_seconds(certificate["notAfter"]) if "notAfter" in certificate else None


# X509_V_ERR_… of OpenSSL.
_EXPIRED, _NOT_YET_VALID = {10}, {9}
_SELF_SIGNED, _NO_ISSUER = {18, 19}, {2, 20, 21}
_NAME_MISMATCH = {62, 64}


def untrusted(
    target: Target, error: ssl.SSLCertVerificationError, certificate: x509.Certificate | None
) -> CheckFailed:
    """Diagnose a certificate that OpenSSL rejects."""
    code = error.verify_code
    if code in _NAME_MISMATCH:
        names = ", ".join(_names(certificate)) or "no name"
        return CheckFailed(
            "certificate_name_mismatch",
            f"the certificate is for {names}, not for {target.host}",
            f"use a certificate for {target.host}, or a host in the URL that the certificate contains",
        )
    if code in _EXPIRED | _NOT_YET_VALID and certificate is not None:
        return _not_valid_now(code, certificate)
    if code in _SELF_SIGNED:
        return CheckFailed(
            "certificate_self_signed",
            "the certificate is not signed by an authority that browsers trust",
            "use one of a public authority; --ca FILE if all your browsers trust a private authority",
        )
    if code in _NO_ISSUER:
        return CheckFailed(
            "certificate_chain_incomplete",
            "the certificate chain is incomplete, or ends at an unknown authority",
            "send the intermediate certificates too (nginx: fullchain.pem in ssl_certificate; "
            "aphlict: ssl.chain); --ca FILE for a private authority",
        )
    return CheckFailed(
        "certificate_untrusted",
        f"the certificate is not trusted: {error.verify_message}",
        "use another certificate",
    )


def _not_valid_now(code: int, certificate: x509.Certificate) -> CheckFailed:
    if code in _EXPIRED:
        return CheckFailed(
            "certificate_expired",
            f"the certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
            "renew it, and reload the program that terminates TLS (nginx -s reload, aphlict: SIGHUP)",
        )
    return CheckFailed(
        "certificate_not_yet_valid",
        f"the certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
        "correct this machine's clock, or wait",
    )


def _names(certificate: x509.Certificate | None) -> list[str]:
    if certificate is None:
        return []
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [certificate.subject.rfc4514_string()]
    return [str(each.value) for each in names]
