"""The doctor's results for proxies that do not pass a WebSocket."""

import pytest

from tests.proxies.apache import apache
from tests.proxies.haproxy import haproxy, simple
from tests.proxies.nginx import shipped_path, site
from tests.proxies.programs import free_port
from tests.support.doctor import Doctor
from tests.support.installation import Installation

UPGRADE = "proxy_set_header Upgrade $http_upgrade;"
CONNECTION = "proxy_set_header Connection upgrade;"
HTTP_1_1 = "proxy_http_version 1.1;"


def url(port: int, path: str = "/ws/") -> tuple[str, str]:
    """The option that names where browsers connect to."""
    return "--url", f"ws://127.0.0.1:{port}{path}"


def to(server: Installation, *lines: str, path: str = "/ws/") -> str:
    """A location of nginx that leads to Aphlict."""
    return f"location {path} {{ proxy_pass http://127.0.0.1:{server.client_port}; {' '.join(lines)} }}"


def test_a_way_without_fault(server: Installation, doctor: Doctor) -> None:
    with shipped_path(server.client_port) as port:
        diagnosis = doctor.visit(server, *url(port, "/ws/~acme/"), "--instance", "acme")
        assert diagnosis.status == 0
        assert "acme" in diagnosis.of("delivery")[0]["says"]
        assert "nginx" in diagnosis.of("upgrade")[0]["says"]


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        ((), "the Upgrade header"),
        ((HTTP_1_1, UPGRADE), "the Connection header"),
        ((UPGRADE, CONNECTION), "HTTP/1.1"),
    ],
)
def test_nginx_that_loses_a_header(
    server: Installation, doctor: Doctor, lines: tuple[str, ...], lost: str
) -> None:
    with site(to(server, *lines)) as port:
        doctor.visit(server, *url(port)).expect("upgrade", lost, "at nginx", "proxy_set_header Upgrade")


def test_apache_without_upgrade_websocket(server: Installation, doctor: Doctor) -> None:
    port = free_port()
    plain = f'ProxyPass "/ws/" "http://127.0.0.1:{server.client_port}/ws/"'
    with apache(plain, port, modules=("proxy", "proxy_http")):
        diagnosis = doctor.visit(server, *url(port))
        diagnosis.expect("upgrade", "the Upgrade header", "at Apache", "upgrade=websocket")


def test_haproxy_that_deletes_the_header(server: Installation, doctor: Doctor) -> None:
    port = free_port()
    rule = "http-request del-header Upgrade"
    with haproxy(simple(port, server.client_port, rule=rule), port):
        doctor.visit(server, *url(port)).expect("upgrade", "the Upgrade header got lost on the way")


def test_a_path_that_nginx_does_not_pass_on(server: Installation, doctor: Doctor) -> None:
    with site(to(server, path="/other/")) as port:
        diagnosis = doctor.visit(server, *url(port))
        diagnosis.expect("upgrade", "nginx answers 404", "does not pass /ws/ to Aphlict", "conf/nginx")


def test_a_path_that_apache_does_not_pass_on(server: Installation, doctor: Doctor) -> None:
    port = free_port()
    with apache("", port):
        diagnosis = doctor.visit(server, *url(port))
        diagnosis.expect("upgrade", "Apache answers 404", "does not pass /ws/ to Aphlict", "conf/apache")


def test_a_page_of_the_site(server: Installation, doctor: Doctor) -> None:
    with site('location / { return 200 "welcome"; }') as port:
        doctor.visit(server, *url(port)).expect(
            "upgrade", "nginx answers 200", "the site answers, not Aphlict"
        )


def test_a_login_before_the_path(server: Installation, doctor: Doctor) -> None:
    with site("location /ws/ { deny all; }") as port:
        doctor.visit(server, *url(port)).expect("upgrade", "nginx answers 403", "without a login")


def test_a_redirect_to_tls(server: Installation, doctor: Doctor) -> None:
    with site("return 301 https://notify.example.org$request_uri;") as port:
        diagnosis = doctor.visit(server, *url(port))
        diagnosis.expect("upgrade", "nginx redirects", "wss://notify.example.org/ws/")


def test_nginx_that_leads_to_a_wrong_port(server: Installation, doctor: Doctor) -> None:
    wrong = f"location /ws/ {{ proxy_pass http://127.0.0.1:{free_port()}; }}"
    with site(wrong) as port:
        diagnosis = doctor.visit(server, *url(port))
        diagnosis.expect("upgrade", "nginx answers 502", "does not reach", f"port {server.client_port}")


def test_apache_that_leads_to_a_wrong_port(server: Installation, doctor: Doctor) -> None:
    port = free_port()
    wrong = f'ProxyPass "/ws/" "http://127.0.0.1:{free_port()}/ws/" upgrade=websocket'
    with apache(wrong, port, modules=("proxy", "proxy_http")):
        diagnosis = doctor.visit(server, *url(port))
        diagnosis.expect("upgrade", "Apache answers 503", "ProxyPass", f"port {server.client_port}")


def test_haproxy_that_leads_to_a_wrong_port(server: Installation, doctor: Doctor) -> None:
    port = free_port()
    with haproxy(simple(port, free_port(), rule="retries 0"), port):
        diagnosis = doctor.visit(server, *url(port))
        diagnosis.expect("upgrade", "HAProxy answers 503", "backend", f"port {server.client_port}")


def test_apache_without_the_module_for_websockets(server: Installation, doctor: Doctor) -> None:
    port = free_port()
    alone = f'ProxyPass "/ws/" "ws://127.0.0.1:{server.client_port}/ws/"'
    with apache(alone, port, modules=("proxy",)):
        doctor.visit(server, *url(port)).expect("upgrade", "Apache answers 500", "a2enmod")


def test_a_proxy_that_leads_to_the_admin_port(server: Installation, doctor: Doctor) -> None:
    admin = f"location /ws/ {{ proxy_pass http://127.0.0.1:{server.admin_port}; {HTTP_1_1} {UPGRADE} {CONNECTION} }}"
    with site(admin) as port:
        diagnosis = doctor.visit(server, *url(port))
        diagnosis.expect("upgrade", "admin port", f"client port, {server.client_port}")
