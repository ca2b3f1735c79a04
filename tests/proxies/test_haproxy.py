"""Aphlict behind HAProxy, with the configurations in conf/."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tornado.httpclient import HTTPResponse

from tests.proxies.haproxy import shipped_haproxy
from tests.proxies.nginx import nginx
from tests.proxies.programs import free_port
from tests.proxies.route import ProxiedRoute, fetch, get, prove_refusal
from tests.support.nodes import running_node


@contextmanager
def site(cookie: str) -> Iterator[int]:
    """Run a web server that sets a cookie. Yields its port."""
    port = free_port()
    answer = f'add_header Set-Cookie "{cookie}"; return 200 "the site\\n";'
    with nginx(f"server {{ listen 127.0.0.1:{port}; location / {{ {answer} }} }}", port):
        yield port


def cookies(answer: HTTPResponse) -> str:
    """Return the cookie that a browser sends back."""
    return "; ".join(each.partition(";")[0] for each in answer.headers.get_list("Set-Cookie"))


async def test_a_path_of_the_site_and_an_inserted_cookie_that_leads_back() -> None:
    async with running_node() as one, running_node() as two:
        with site("phsid=secret") as site_port:
            ports = {"22280": one.client_port, "22380": two.client_port, "8080": site_port}
            with shipped_haproxy("aphlict-path.cfg", ports) as port:
                for name, node in ("one", one), ("two", two):
                    await ProxiedRoute(node, port, cookie=f"APHLICT={name}").check()
                await prove_refusal(f"http://127.0.0.1:{port}/ws/")
                answer = await get(f"http://127.0.0.1:{port}/ws/status")
                assert re.fullmatch("APHLICT=(one|two)", cookies(answer))
                assert await fetch(f"http://127.0.0.1:{port}/") == (200, b"the site\n")


async def test_a_host_name_of_its_own() -> None:
    async with running_node() as node:
        with site("phsid=secret") as site_port:
            ports = {"22280": node.client_port, "8080": site_port}
            with shipped_haproxy("aphlict-subdomain.cfg", ports) as port:
                await ProxiedRoute(node, port, "/~acme/", instance="acme", host="notify.example.org").check()
                assert await fetch(f"http://127.0.0.1:{port}/") == (200, b"the site\n")


async def test_the_upgrade_header_and_the_prefixed_cookie_of_the_site() -> None:
    async with running_node() as one, running_node() as two:
        nodes = {"one": one, "two": two}
        with site("phsid=secret") as site_port:
            ports = {"22280": one.client_port, "22380": two.client_port, "8080": site_port, "8180": site_port}
            with shipped_haproxy("aphlict-upgrade.cfg", ports) as port:
                answer = await get(f"http://127.0.0.1:{port}/anything")
                assert answer.body == b"the site\n"
                cookie = re.fullmatch("phsid=(one|two)~secret", cookies(answer))
                assert cookie is not None
                route = ProxiedRoute(nodes[cookie[1]], port, "/ws/~acme/", instance="acme", cookie=cookie[0])
                await route.check()
                await replace(route, path="/anything/~acme/").check_websocket()
