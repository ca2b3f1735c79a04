"""Aphlict behind nginx, with the configurations that are shipped."""

import ssl
from pathlib import Path

from tests.proxies.nginx import shipped_path, shipped_server
from tests.proxies.proving import fetch, prove_refusal, prove_status, prove_websocket
from tests.support import certificates
from tests.support.loops import in_loop
from tests.support.nodes import running_node


@in_loop
async def test_a_path_of_the_site() -> None:
    async with running_node() as node:
        with shipped_path(node.client_port) as port:
            await prove_websocket(node, f"ws://127.0.0.1:{port}/ws/")
            await prove_websocket(node, f"ws://127.0.0.1:{port}/ws/~acme/", instance="acme")
            await prove_refusal(f"http://127.0.0.1:{port}/ws/")
            await prove_status(f"http://127.0.0.1:{port}/ws/status")
            assert await fetch(f"http://127.0.0.1:{port}/") == (200, b"the site\n")


@in_loop
async def test_a_host_name_of_its_own() -> None:
    async with running_node() as node:
        with shipped_server("aphlict-subdomain.conf", node.client_port) as port:
            headers = {"Host": "notify.example.org"}
            url = f"http://127.0.0.1:{port}"
            await prove_websocket(node, f"ws://127.0.0.1:{port}/~acme/", instance="acme")
            await prove_refusal(url, headers=headers)
            await prove_status(f"{url}/status", headers=headers)


@in_loop
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
            context = ssl.create_default_context(cafile=trusted)
            await prove_websocket(node, f"wss://localhost:{port}/", tls=context)
            await prove_status(f"https://localhost:{port}/status", ca_certs=trusted)
