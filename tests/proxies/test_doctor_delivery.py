"""The doctor's results for proxies that pass a WebSocket but have other problems."""

from pathlib import Path

from tests.proxies.apache import apache
from tests.proxies.nginx import shipped_path, site
from tests.proxies.programs import free_port
from tests.proxies.shipped import shipped
from tests.support.doctor import Doctor
from tests.support.installation import Installation, installed

PASS = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"


def test_an_instance_that_a_proxy_removes(server: Installation, doctor: Doctor) -> None:
    stripped = (
        f"location /ws/ {{ rewrite ^ /ws/ break; proxy_pass http://127.0.0.1:{server.client_port}; {PASS} }}"
    )
    with site(stripped) as port:
        diagnosis = doctor.examine(server, "--url", f"ws://127.0.0.1:{port}/ws/~acme/")
        diagnosis.expect("delivery", "instance_dropped", "'acme'", "'default'")


def test_a_url_with_another_instance(server: Installation, doctor: Doctor) -> None:
    with shipped_path(server.client_port) as port:
        diagnosis = doctor.examine(server, "--url", f"ws://127.0.0.1:{port}/ws/", "--instance", "acme")
        diagnosis.expect("URL", "instance_mismatch", "'default'", "/ws/~acme/")


def test_a_proxy_that_forwards_to_another_server(
    server: Installation, doctor: Doctor, tmp_path: Path
) -> None:
    with installed(tmp_path) as other:
        other.start()
        with shipped_path(other.client_port) as port:
            diagnosis = doctor.examine(server, "--url", f"ws://127.0.0.1:{port}/ws/")
            diagnosis.expect("delivery", "wrong_server")


def test_the_idle_timeout_of_nginx(server: Installation, doctor: Doctor) -> None:
    short = {"proxy_read_timeout    120s": "proxy_read_timeout 1s"}
    with shipped_path(server.client_port, **short) as port:
        diagnosis = doctor.examine(server, "--url", f"ws://127.0.0.1:{port}/ws/", "--idle", "10")
        diagnosis.expect("idle", "idle_timeout", "proxy_read_timeout", "ping.interval")


def test_the_idle_timeout_of_apache(server: Installation, doctor: Doctor) -> None:
    port = free_port()
    short = {"22280": str(server.client_port), " timeout=120": " timeout=1"}
    # Apache uses the longer one: the site's Timeout, or that of the ProxyPass line.
    with apache("Timeout 1\n" + shipped("apache/aphlict-path.conf", **short), port):
        diagnosis = doctor.examine(server, "--url", f"ws://127.0.0.1:{port}/ws/", "--idle", "10")
        diagnosis.expect("idle", "idle_timeout", "timeout=", "ping.interval")


def test_a_connection_that_stays_open(server: Installation, doctor: Doctor) -> None:
    with shipped_path(server.client_port) as port:
        diagnosis = doctor.examine(server, "--url", f"ws://127.0.0.1:{port}/ws/", "--idle", "0.5")
        assert diagnosis.status == 0
        assert diagnosis.verdicts("idle") == ["ok"]
