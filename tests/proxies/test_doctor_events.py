"""The doctor's results for proxies that break event streams or polls."""

from tests.proxies.apache import apache
from tests.proxies.nginx import shipped_path, site
from tests.proxies.programs import free_port
from tests.proxies.shipped import shipped
from tests.support.doctor import Doctor
from tests.support.installation import Installation

PASS = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"


def to(server: Installation) -> str:
    """Return the lines of an nginx location that forwards to Aphlict."""
    return f"proxy_pass http://127.0.0.1:{server.client_port}; {PASS}"


def test_forwarded_events_and_polls(server: Installation, doctor: Doctor) -> None:
    with shipped_path(server.client_port) as port:
        diagnosis = doctor.examine(server, "--url", f"ws://127.0.0.1:{port}/ws/~acme/")
        assert diagnosis.status == 0
        for check in "events", "polling", "status page":
            assert diagnosis.verdicts(check) == ["ok"]


def test_nginx_that_buffers_events(server: Installation, doctor: Doctor) -> None:
    buffering = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"
    with site(f"location /ws/ {{ {to(server)} {buffering} }}") as port:
        diagnosis = doctor.examine(server, "--url", f"ws://127.0.0.1:{port}/ws/")
        diagnosis.expect("events", "response_buffered", "nginx", "proxy_buffering off")


def test_apache_that_compresses_events(server: Installation, doctor: Doctor) -> None:
    port = free_port()
    text = shipped("apache/aphlict-path.conf", **{"22280": str(server.client_port), "no-gzip 1": "other 1"})
    squeezing = "SetOutputFilter DEFLATE\nHeader edit Cache-Control no-transform none\n"
    with apache(squeezing + text, port, modules=("headers",)):
        diagnosis = doctor.examine(server, "--url", f"ws://127.0.0.1:{port}/ws/")
        diagnosis.expect("events", "response_compressed", "Apache", "no-gzip")


def test_a_proxy_that_forwards_upgrades_only(server: Installation, doctor: Doctor) -> None:
    with site(f"location = /ws/ {{ {to(server)} }}") as port:
        diagnosis = doctor.examine(server, "--url", f"ws://127.0.0.1:{port}/ws/")
        for check in "events", "polling", "status page":
            diagnosis.expect_warning(check, "endpoint_unavailable", "nginx", "404")
