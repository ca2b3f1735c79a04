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
    """Return the option for the URL that browsers connect to."""
    return "--url", f"ws://127.0.0.1:{port}{path}"


def to(server: Installation, *lines: str, path: str = "/ws/") -> str:
    """Return a location of nginx that forwards to Aphlict."""
    return f"location {path} {{ proxy_pass http://127.0.0.1:{server.client_port}; {' '.join(lines)} }}"


def test_a_correct_proxy(server: Installation, doctor: Doctor) -> None:
    with shipped_path(server.client_port) as port:
        diagnosis = doctor.examine(server, *url(port, "/ws/~acme/"), "--instance", "acme")
        assert diagnosis.status == 0
        assert "acme" in diagnosis.of("delivery")[0]["message"]
        assert "nginx" in diagnosis.of("upgrade")[0]["message"]


@pytest.mark.parametrize(
    ("lines", "code", "dropped"),
    [
        ((), "upgrade_required", "the Upgrade header"),
        ((HTTP_1_1, UPGRADE), "connection_header_required", "the Connection header"),
        ((UPGRADE, CONNECTION), "http_1_1_required", "HTTP/1.1"),
    ],
)
def test_nginx_that_drops_a_header(
    server: Installation, doctor: Doctor, lines: tuple[str, ...], code: str, dropped: str
) -> None:
    with site(to(server, *lines)) as port:
        diagnosis = doctor.examine(server, *url(port))
        diagnosis.expect("upgrade", code, f"nginx dropped {dropped}", "proxy_set_header Upgrade")


def test_apache_without_upgrade_websocket(server: Installation, doctor: Doctor) -> None:
    port = free_port()
    plain = f'ProxyPass "/ws/" "http://127.0.0.1:{server.client_port}/ws/"'
    with apache(plain, port, modules=("proxy", "proxy_http")):
        diagnosis = doctor.examine(server, *url(port))
        diagnosis.expect("upgrade", "upgrade_required", "Apache", "upgrade=websocket")


def test_haproxy_that_deletes_the_header(server: Installation, doctor: Doctor) -> None:
    port = free_port()
    rule = "http-request del-header Upgrade"
    with haproxy(simple(port, server.client_port, rule=rule), port):
        doctor.examine(server, *url(port)).expect(
            "upgrade", "upgrade_required", "a proxy dropped the Upgrade header"
        )


def test_a_path_that_nginx_does_not_forward(server: Installation, doctor: Doctor) -> None:
    with site(to(server, path="/other/")) as port:
        diagnosis = doctor.examine(server, *url(port))
        diagnosis.expect("upgrade", "path_not_forwarded", "nginx", "404", "/ws/", "conf/nginx")


def test_a_path_that_apache_does_not_forward(server: Installation, doctor: Doctor) -> None:
    port = free_port()
    with apache("", port):
        diagnosis = doctor.examine(server, *url(port))
        diagnosis.expect("upgrade", "path_not_forwarded", "Apache", "404", "/ws/", "conf/apache")


def test_a_page_of_the_site(server: Installation, doctor: Doctor) -> None:
    with site('location / { return 200 "welcome"; }') as port:
        doctor.examine(server, *url(port)).expect("upgrade", "path_not_forwarded", "nginx", "200")


def test_a_path_that_requires_a_login(server: Installation, doctor: Doctor) -> None:
    with site("location /ws/ { deny all; }") as port:
        doctor.examine(server, *url(port)).expect("upgrade", "access_denied", "nginx", "403")


def test_a_redirect_to_tls(server: Installation, doctor: Doctor) -> None:
    with site("return 301 https://notify.example.org$request_uri;") as port:
        diagnosis = doctor.examine(server, *url(port))
        diagnosis.expect("upgrade", "redirected", "nginx", "wss://notify.example.org/ws/")


def test_nginx_with_a_wrong_port(server: Installation, doctor: Doctor) -> None:
    wrong = f"location /ws/ {{ proxy_pass http://127.0.0.1:{free_port()}; }}"
    with site(wrong) as port:
        diagnosis = doctor.examine(server, *url(port))
        diagnosis.expect("upgrade", "upstream_unreachable", "nginx", "502", f"port {server.client_port}")


def test_apache_with_a_wrong_port(server: Installation, doctor: Doctor) -> None:
    port = free_port()
    wrong = f'ProxyPass "/ws/" "http://127.0.0.1:{free_port()}/ws/" upgrade=websocket'
    with apache(wrong, port, modules=("proxy", "proxy_http")):
        diagnosis = doctor.examine(server, *url(port))
        diagnosis.expect(
            "upgrade", "upstream_unreachable", "Apache", "ProxyPass", f"port {server.client_port}"
        )


def test_haproxy_with_a_wrong_port(server: Installation, doctor: Doctor) -> None:
    port = free_port()
    with haproxy(simple(port, free_port(), rule="retries 0"), port):
        diagnosis = doctor.examine(server, *url(port))
        diagnosis.expect(
            "upgrade", "upstream_unreachable", "HAProxy", "backend", f"port {server.client_port}"
        )


def test_apache_without_the_module_for_websockets(server: Installation, doctor: Doctor) -> None:
    port = free_port()
    alone = f'ProxyPass "/ws/" "ws://127.0.0.1:{server.client_port}/ws/"'
    with apache(alone, port, modules=("proxy",)):
        doctor.examine(server, *url(port)).expect("upgrade", "proxy_error", "Apache", "a2enmod")


def test_a_proxy_that_forwards_to_the_admin_port(server: Installation, doctor: Doctor) -> None:
    admin = f"location /ws/ {{ proxy_pass http://127.0.0.1:{server.admin_port}; {HTTP_1_1} {UPGRADE} {CONNECTION} }}"
    with site(admin) as port:
        diagnosis = doctor.examine(server, *url(port))
        diagnosis.expect("upgrade", "admin_port", f"client port, {server.client_port}")
