"""The doctor's results for TLS that browsers reject."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.proxies.haproxy import haproxy, simple
from tests.proxies.nginx import nginx, shipped_path
from tests.proxies.programs import free_port
from tests.support import certificates
from tests.support.certificates import Issued
from tests.support.doctor import Doctor
from tests.support.installation import Installation, installed

PASS = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"


@contextmanager
def nginx_with(issued: Issued, server: Installation, *, whole: bool = True) -> Iterator[int]:
    """Run nginx that terminates TLS with this certificate, and its chain if `whole`."""
    port = free_port()
    chain = issued.chain if whole else b""
    files = {
        "cert.pem": (issued.own + chain).decode(),
        "key.pem": certificates.key_pem(issued.key).decode(),
    }
    server_block = f"""server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate cert.pem;
        ssl_certificate_key key.pem;
        location /ws/ {{ proxy_pass http://127.0.0.1:{server.client_port}; {PASS} }}
    }}"""
    with nginx(server_block, port, files):
        yield port


@pytest.fixture(scope="module")
def authority() -> certificates.Authority:
    """A private certificate authority."""
    return certificates.root()


@pytest.fixture(scope="module")
def trusted(authority: certificates.Authority, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its certificate, for --ca."""
    return certificates.put(tmp_path_factory.mktemp("ca") / "ca.pem", authority.own)


def url(port: int, scheme: str = "wss") -> str:
    """The server block that browsers connect to."""
    return f"{scheme}://localhost:{port}/ws/"


def test_a_valid_certificate(
    server: Installation, doctor: Doctor, authority: certificates.Authority, trusted: str
) -> None:
    with nginx_with(authority.intermediate().issue(), server) as port:
        diagnosis = doctor.examine(server, "--url", url(port), "--ca", trusted)
        assert diagnosis.status == 0
        assert "localhost" in diagnosis.of("TLS")[0]["message"]


def test_a_certificate_that_expires_soon(
    server: Installation, doctor: Doctor, authority: certificates.Authority, trusted: str
) -> None:
    with nginx_with(authority.issue(days=7), server) as port:
        diagnosis = doctor.examine(server, "--url", url(port), "--ca", trusted)
        diagnosis.expect_warning("TLS", "certificate_expires_soon", "6 days")
        assert diagnosis.verdicts("TLS") == ["ok", "warning"]


def test_a_certificate_for_another_name(
    server: Installation, doctor: Doctor, authority: certificates.Authority, trusted: str
) -> None:
    with nginx_with(authority.issue("phorge.example.org"), server) as port:
        diagnosis = doctor.examine(server, "--url", url(port), "--ca", trusted)
        diagnosis.expect("TLS", "certificate_name_mismatch", "phorge.example.org", "localhost")


def test_a_certificate_that_has_expired(
    server: Installation, doctor: Doctor, authority: certificates.Authority, trusted: str
) -> None:
    with nginx_with(authority.issue(starts=-9, days=-2), server) as port:
        doctor.examine(server, "--url", url(port), "--ca", trusted).expect("TLS", "certificate_expired")


def test_a_certificate_that_is_not_yet_valid(
    server: Installation, doctor: Doctor, authority: certificates.Authority, trusted: str
) -> None:
    with nginx_with(authority.issue(starts=2), server) as port:
        doctor.examine(server, "--url", url(port), "--ca", trusted).expect("TLS", "certificate_not_yet_valid")


def test_a_self_signed_certificate(server: Installation, doctor: Doctor) -> None:
    with nginx_with(certificates.self_signed(), server) as port:
        doctor.examine(server, "--url", url(port)).expect("TLS", "certificate_self_signed")


def test_an_incomplete_chain(
    server: Installation, doctor: Doctor, authority: certificates.Authority, trusted: str
) -> None:
    with nginx_with(authority.intermediate().issue(), server, whole=False) as port:
        diagnosis = doctor.examine(server, "--url", url(port), "--ca", trusted)
        diagnosis.expect("TLS", "certificate_chain_incomplete", "fullchain.pem")


def test_wss_to_a_port_that_speaks_plain_http(server: Installation, doctor: Doctor) -> None:
    with shipped_path(server.client_port) as port:
        doctor.examine(server, "--url", url(port)).expect("TLS", "tls_missing", "ws://")


def test_ws_to_nginx_that_speaks_tls(
    server: Installation, doctor: Doctor, authority: certificates.Authority
) -> None:
    with nginx_with(authority.issue(), server) as port:
        diagnosis = doctor.examine(server, "--url", url(port, "ws"))
        diagnosis.expect("upgrade", "tls_required", f"wss://localhost:{port}/ws/")


def test_ws_to_haproxy_that_speaks_tls(
    server: Installation, doctor: Doctor, authority: certificates.Authority, tmp_path: Path
) -> None:
    issued, port = authority.issue(), free_port()
    both = (issued.own + certificates.key_pem(issued.key)).decode()
    text = simple(port, server.client_port, tls="ssl crt both.pem")
    with haproxy(text, port, {"both.pem": both}):
        diagnosis = doctor.examine(server, "--url", url(port, "ws"))
        diagnosis.expect("upgrade", "tls_required", f"wss://localhost:{port}/ws/")


def test_a_server_that_terminates_tls(
    doctor: Doctor, authority: certificates.Authority, trusted: str, tmp_path: Path
) -> None:
    with installed(tmp_path) as made:
        files = authority.issue().write(tmp_path)
        client = {"type": "client", "port": made.client_port, "listen": "127.0.0.1", **files.settings()}
        made.write(servers=[client, {"type": "admin", "port": made.admin_port}])
        made.start()
        diagnosis = doctor.examine(made, "--url", url(made.client_port), "--ca", trusted)
        assert diagnosis.status == 0
        doctor.examine(made, "--url", url(made.client_port, "ws")).expect("upgrade", "tls_required", "wss://")
