"""Certificates as a browser sees them: what is wrong where one is not trusted."""

import ssl
from typing import Any

from cryptography import x509

from aphlict.doctor.findings import Trouble
from aphlict.doctor.target import Target


def end_of(sock: ssl.SSLSocket) -> float | None:
    """When the other side's certificate ends, in seconds since 1970; None where it was not looked at."""
    shown: dict[str, Any] = sock.getpeercert() or {}
    return ssl.cert_time_to_seconds(shown["notAfter"]) if "notAfter" in shown else None


# X509_V_ERR_… of OpenSSL: what was wrong with a certificate, and what to change.
_EXPIRED, _NOT_YET = {10}, {9}
_SELF_SIGNED, _NO_ISSUER = {18, 19}, {2, 20, 21}
_OTHER_NAME = {62, 64}


def distrust(target: Target, error: ssl.SSLCertVerificationError, shown: x509.Certificate | None) -> Trouble:
    """What to make of a refusal by OpenSSL; `shown` is the certificate that the other side shows."""
    code = error.verify_code
    if code in _OTHER_NAME:
        names = ", ".join(_names(shown)) or "nothing"
        return Trouble(
            f"the certificate is for {names}, not for {target.host}",
            f"use a certificate that names {target.host}, or the name that it has in the URL",
        )
    if code in _EXPIRED and shown is not None:
        return Trouble(
            f"the certificate expired on {shown.not_valid_after_utc:%Y-%m-%d}",
            "renew it where TLS is ended, and reload what ends it (nginx -s reload, aphlict: SIGHUP)",
        )
    if code in _NOT_YET and shown is not None:
        return Trouble(
            f"the certificate is not valid before {shown.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
            "correct this machine's clock, or wait",
        )
    if code in _SELF_SIGNED:
        return Trouble(
            "the certificate is signed by nobody that browsers trust",
            "use one of a public authority; --ca FILE if all your browsers trust an authority of your own",
        )
    if code in _NO_ISSUER:
        return Trouble(
            "the certificate's chain is not whole, or ends at an authority that is not known here",
            "send the intermediate certificates too (nginx: fullchain.pem in ssl_certificate; "
            "aphlict: ssl.chain); --ca FILE for an authority of your own",
        )
    return Trouble(f"the certificate is not trusted: {error.verify_message}", "use another certificate")


def _names(certificate: x509.Certificate | None) -> list[str]:
    if certificate is None:
        return []
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [certificate.subject.rfc4514_string()]
    return [str(each.value) for each in names]
