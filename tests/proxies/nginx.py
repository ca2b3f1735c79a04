"""Run nginx in a temporary folder."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.proxies.programs import free_port, put, require, running, workplace
from tests.proxies.shipped import shipped

MAIN = """\
pid nginx.pid;
error_log stderr notice;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{http}
}}
"""
UPSTREAM = "include aphlict/aphlict-upstream.conf;\n"  # as docs/proxies.md says
SITE = """\
server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 "the site\\n"; }}
    {server}
}}
"""


@contextmanager
def nginx(http: str, port: int, files: dict[str, str] | None = None) -> Iterator[None]:
    """Run nginx with these lines in its http block until the end of the block."""
    program = require("nginx", "nginx-light")
    with workplace() as folder:
        put(folder, "nginx.conf", MAIN.format(http=http))
        for name, content in (files or {}).items():
            put(folder, name, content)
        command = [program, "-p", f"{folder}/", "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"]
        with running(command, folder, port):
            yield


def shipped_files(upstream_port: int, **changes: str) -> dict[str, str]:
    """Return the included files, with another port of Aphlict and these changes in aphlict-location.conf."""
    return {
        "aphlict/aphlict-upstream.conf": shipped(
            "nginx/aphlict-upstream.conf", **{"22280": str(upstream_port)}
        ),
        "aphlict/aphlict-location.conf": shipped("nginx/aphlict-location.conf", **changes),
    }


@contextmanager
def site(locations: str) -> Iterator[int]:
    """Run nginx with a site that has these locations, `/` optional. Yields its port."""
    port = free_port()
    with nginx(f"server {{\n listen 127.0.0.1:{port};\n {locations}\n}}", port):
        yield port


@contextmanager
def shipped_path(upstream_port: int, **changes: str) -> Iterator[int]:
    """Run nginx with the path of conf/, with these changes in aphlict-location.conf. Yields its port."""
    port = free_port()
    site = SITE.format(port=port, server="include aphlict/aphlict-path.conf;")
    files = {
        **shipped_files(upstream_port, **changes),
        "aphlict/aphlict-path.conf": shipped("nginx/aphlict-path.conf"),
    }
    with nginx(UPSTREAM + site, port, files):
        yield port


@contextmanager
def shipped_server(
    name: str, upstream_port: int, extra: dict[str, str] | None = None, **changes: str
) -> Iterator[int]:
    """Run nginx with a server block of conf/nginx and these extra files. Yields its port."""
    port = free_port()
    server = shipped(f"nginx/{name}", **changes)
    lines = [line for line in server.splitlines() if "[::]" not in line]  # a machine may have no IPv6
    listen = "443" if "listen 443" in server else "80"
    text = "\n".join(lines).replace(f"listen {listen}", f"listen 127.0.0.1:{port}")
    files = {**shipped_files(upstream_port), f"aphlict/{name}": text, **(extra or {})}
    with nginx(f"{UPSTREAM}include aphlict/{name};\n", port, files):
        yield port
