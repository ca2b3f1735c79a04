"""Aphlict behind nginx, with the configurations in conf/."""

import ssl
from pathlib import Path

from tests.proxies.nginx import shipped_path, shipped_server
from tests.proxies.route import ProxiedRoute, fetch, prove_refusal
from tests.support import certificates
from tests.support.nodes import running_node


async def test_a_path_of_the_site() -> None:
    async with running_node() as node:
        with shipped_path(node.client_port) as port:
            await ProxiedRoute(node, port).check()
            await ProxiedRoute(node, port, "/ws/~acme/", instance="acme").check()
            await prove_refusal(f"http://127.0.0.1:{port}/ws/")
            assert await fetch(f"http://127.0.0.1:{port}/") == (200, b"the site\n")


async def test_a_host_name_of_its_own() -> None:
    async with running_node() as node:
        with shipped_server("aphlict-subdomain.conf", node.client_port) as port:
            await ProxiedRoute(node, port, "/~acme/", instance="acme", host="notify.example.org").check()


async def test_tls_that_ends_at_nginx(tmp_path: Path) -> None:
    issued = certificates.root().issue()
    trusted = certificates.put(tmp_path / "ca.pem", issued.root)
    extra = {"cert.pem": issued.own.decode(), "key.pem": certificates.key_pem(issued.key).decode()}
    paths = {
        "/etc/ssl/certs/ssl-cert-snakeoil.pem": "cert.pem",
        "/etc/ssl/private/ssl-cert-snakeoil.key": "key.pem",
    }
    async with running_node() as node:
        with shipped_server("aphlict-tls.conf", node.client_port, extra, **paths) as port:
            await ProxiedRoute(node, port, "/", tls=ssl.create_default_context(cafile=trusted)).check()
