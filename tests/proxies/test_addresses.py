"""The client's address through real proxies; HAProxy also behaves like an AWS Network Load Balancer."""

import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.proxies.apache import apache
from tests.proxies.haproxy import shipped_haproxy
from tests.proxies.nginx import shipped_path
from tests.proxies.programs import free_port
from tests.proxies.route import ProxiedRoute
from tests.proxies.shipped import shipped
from tests.support import certificates
from tests.support.doctor import Doctor
from tests.support.installation import installed
from tests.support.nodes import command, running_node

BROWSER = "127.0.0.2"  # this machine, but not the address that the proxies connect from
FORGED = "203.0.113.66"

Proxy = Callable[[int], AbstractContextManager[int]]


@pytest.fixture(autouse=True)
def every_line(caplog: pytest.LogCaptureFixture) -> None:
    """Connections are logged at DEBUG."""
    caplog.set_level(logging.DEBUG, logger="aphlict")


@contextmanager
def apache_path(upstream: int) -> Iterator[int]:
    """The shipped path of Apache."""
    port = free_port()
    with apache(shipped("apache/aphlict-path.conf", **{"22280": str(upstream)}), port):
        yield port


@contextmanager
def haproxy_name(upstream: int) -> Iterator[int]:
    """The shipped host name of HAProxy."""
    with shipped_haproxy("aphlict-subdomain.cfg", {"22280": upstream}) as port:
        yield port


async def visit(port: int, **options: Any) -> None:
    """Connect from the client's address, with a header that claims another."""
    forged = {"X-Forwarded-For": FORGED}
    dialled = {"host": "127.0.0.1", "port": port, "local_addr": (BROWSER, 0), **options}
    async with connect("ws://notify.example.org/ws/", additional_headers=forged, **dialled) as browser:
        await command(browser, "subscribe", ["a"])


@pytest.mark.parametrize("proxy", [shipped_path, apache_path, haproxy_name])
async def test_x_forwarded_for_of_a_trusted_proxy(proxy: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    async with running_node(client={"proxy.trusted": ["127.0.0.1"]}) as node:
        with proxy(node.client_port) as port:
            await visit(port)
    assert f"connected from {BROWSER} to" in caplog.text
    assert f"connected from {FORGED}" not in caplog.text


@pytest.mark.parametrize("proxy", [shipped_path, apache_path, haproxy_name])
async def test_x_forwarded_for_of_a_proxy_that_is_not_trusted(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_node() as node:
        with proxy(node.client_port) as port:
            await visit(port)
    assert "connected from 127.0.0.1 to" in caplog.text


async def test_bytes_passed_through_with_proxy_protocol_2(caplog: pytest.LogCaptureFixture) -> None:
    async with running_node(client={"proxy.protocol": True}) as node:
        ports = {"22280": node.client_port, "22380": node.client_port}
        with shipped_haproxy("aphlict-tcp.cfg", ports, **{"inter 2s": "inter 100ms"}) as port:
            await ProxiedRoute(node, port).check()
            await visit(port)
            assert (await node.status())["clients.total"] == 5  # the checks are not counted
    assert f"connected from {BROWSER} to" in caplog.text
    assert "dropped" not in caplog.text


async def test_tls_passed_through_with_proxy_protocol_2(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = certificates.root().issue().write(tmp_path)

    client = {"proxy.protocol": True, **files.settings()}
    async with running_node(client=client) as node:
        ports = {"22280": node.client_port, "22380": node.client_port}
        checks = {"check-send-proxy": "check-send-proxy check-ssl verify none"}
        with shipped_haproxy("aphlict-tcp.cfg", ports, **checks) as port:
            trusting = ssl.create_default_context(cafile=files.ca)
            await ProxiedRoute(node, port, tls=trusting).check()
    assert "dropped" not in caplog.text


def test_the_doctor_behind_a_balancer_that_passes_bytes(doctor: Doctor, tmp_path: Path) -> None:
    with installed(tmp_path) as made:
        client = {"type": "client", "port": made.client_port, "proxy.protocol": True}
        made.write(servers=[client, {"type": "admin", "port": made.admin_port}])
        made.start()
        ports = {"22280": made.client_port, "22380": made.client_port}
        with shipped_haproxy("aphlict-tcp.cfg", ports) as port:
            assert doctor.examine(made, "--url", f"ws://127.0.0.1:{port}/ws/").status == 0
        with shipped_path(made.client_port) as port:
            diagnosis = doctor.examine(made, "--url", f"ws://127.0.0.1:{port}/ws/")
            diagnosis.expect("upgrade", "upstream_unreachable", "nginx", "proxy.protocol")


def test_the_doctor_where_proxy_protocol_is_not_set(doctor: Doctor, tmp_path: Path) -> None:
    with installed(tmp_path) as made:
        made.start()
        ports = {"22280": made.client_port, "22380": made.client_port}
        unchecked = {"default-server check inter 2s fall 1 rise 2": "default-server", "check-send-proxy": ""}
        with shipped_haproxy("aphlict-tcp.cfg", ports, **unchecked) as port:
            diagnosis = doctor.examine(made, "--url", f"ws://127.0.0.1:{port}/ws/")
            diagnosis.expect("upgrade", "invalid_request_line", '"proxy.protocol": true')
