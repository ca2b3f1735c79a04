"""What is said of certificates that can serve: dates, order, unrelated."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from aphlict.config.settings import ServerSettings
from aphlict.errors import CertificateError
from aphlict.tls.certificates import CertificateReport, inspect_server
from tests.support import certificates
from tests.support.certificates import Files, Issued

NOW = datetime.now(timezone.utc)


def settings(files: Files) -> ServerSettings:
    return ServerSettings(
        type="client", port=443, ssl_key=files.key, ssl_cert=files.cert, ssl_chain=files.chain
    )


def findings(issued: Issued, folder: Path, now: datetime = NOW) -> CertificateReport:
    return inspect_server(settings(issued.write(folder)), now)


def test_nothing_is_wrong(tmp_path: Path) -> None:
    issued = certificates.root().intermediate().issue(days=90)
    found = findings(issued, tmp_path)
    assert found == CertificateReport((), (), issued.certificate.not_valid_after_utc)


def test_expired(tmp_path: Path) -> None:
    issued = certificates.root().issue(starts=-20, days=-10)
    [error] = findings(issued, tmp_path).errors
    ended = f"{issued.certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    name = 'the certificate "CN=localhost" of the client server on port 443'
    assert error == f"{name} expired on {ended}: browsers reject it, renew it"


def test_not_yet_valid(tmp_path: Path) -> None:
    issued = certificates.root().issue(starts=5, days=90)
    found = findings(issued, tmp_path)
    begins = f"{issued.certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    name = 'the certificate "CN=localhost" of the client server on port 443'
    assert found.errors == (f"{name} is not valid before {begins}: browsers reject it",)
    assert not found.warnings


@pytest.mark.parametrize(
    ("days", "left"),
    [(29.5, "in 29 days"), (1.5, "in 1 day"), (0.5, "in less than a day")],
)
def test_ends_soon(tmp_path: Path, days: float, left: str) -> None:
    issued = certificates.root().issue(days=days)
    found = findings(issued, tmp_path)
    [warning] = found.warnings
    assert warning.endswith(f"UTC, {left}: renew it")
    assert not found.errors


def test_the_edges(tmp_path: Path) -> None:
    issued = certificates.root().issue(days=100)
    ends = issued.certificate.not_valid_after_utc
    second = timedelta(seconds=1)
    assert not findings(issued, tmp_path, ends - timedelta(days=30) - second).warnings
    assert findings(issued, tmp_path, ends - timedelta(days=30)).warnings
    assert findings(issued, tmp_path, ends - second).warnings
    assert not findings(issued, tmp_path, ends).warnings
    assert findings(issued, tmp_path, ends).errors
    begins = issued.certificate.not_valid_before_utc
    assert not findings(issued, tmp_path, begins).errors
    assert findings(issued, tmp_path, begins - second).errors


def test_an_intermediate_counts(tmp_path: Path) -> None:
    root = certificates.root()
    expired = findings(root.intermediate("Old", starts=-20, days=-1).issue(), tmp_path)
    assert "CN=Old" in expired.errors[0]
    ending = root.intermediate("Ending", days=20)
    found = findings(ending.issue(), tmp_path)
    assert "CN=Ending" in found.warnings[0]
    assert found.not_after == ending.certificate.not_valid_after_utc


def test_a_root_that_is_sent_along_does_not(tmp_path: Path) -> None:
    issued = certificates.root(days=10).issue(days=90)
    files = issued.write(tmp_path)
    chain = certificates.put(tmp_path / "chain", issued.root)
    found = inspect_server(settings(files._replace(chain=chain)), NOW)
    assert found == CertificateReport((), (), issued.certificate.not_valid_after_utc)


def test_a_certificate_that_signed_itself_counts(tmp_path: Path) -> None:
    assert findings(certificates.self_signed(starts=-2, days=-1), tmp_path).errors


def test_disorder_is_a_warning(tmp_path: Path) -> None:
    issued = certificates.root().intermediate("Upper").intermediate("Lower").issue()
    files = issued.write(tmp_path)
    Path(str(files.chain)).write_bytes(certificates.pem(*reversed(issued.above[:-1])))
    found = inspect_server(settings(files), NOW)
    assert found.warnings == (
        "the certificates of the client server on port 443 are out of order: "
        'they are sent as "CN=localhost", then "CN=Lower", then "CN=Upper"',
    )
    assert not found.errors


def test_a_stranger_is_an_error(tmp_path: Path) -> None:
    issued = certificates.root().intermediate().issue()
    files = issued.write(tmp_path)
    Path(str(files.chain)).write_bytes(issued.chain + certificates.root("Other").own)
    assert inspect_server(settings(files), NOW).errors == (
        'the certificate "CN=Other" of the client server on port 443 '
        "signed no certificate of the chain and is not sent: remove it",
    )


def test_what_cannot_serve_is_raised(tmp_path: Path) -> None:
    files = certificates.self_signed().write(tmp_path)
    Path(files.key).write_bytes(certificates.key_pem(certificates.make_key()))
    with pytest.raises(CertificateError):
        inspect_server(settings(files), NOW)
