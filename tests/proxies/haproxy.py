"""Run HAProxy in a temporary folder."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tests.proxies.programs import free_port, put, require, running, workplace
from tests.proxies.shipped import changed, shipped

SIMPLE = """\
defaults
    mode http
    timeout connect 2s
    timeout client 5s
    timeout server 5s
frontend web
    bind 127.0.0.1:{port} {tls}
    default_backend aphlict
backend aphlict
    {rule}
    server one 127.0.0.1:{server}
"""


def simple(port: int, server: int, *, tls: str = "", rule: str = "") -> str:
    """Return a configuration that forwards one port to another: `tls` are options of `bind`, `rule` is a line."""
    return SIMPLE.format(port=port, server=server, tls=tls, rule=rule)


@contextmanager
def haproxy(configuration: str, port: int, files: dict[str, str] | None = None) -> Iterator[None]:
    """Run HAProxy with a complete configuration and these files until the end of the block."""
    program = require("haproxy", "haproxy")
    with workplace() as folder:
        for name, content in {"haproxy.cfg": configuration, **(files or {})}.items():
            put(folder, name, content)
        with running([program, "-db", "-f", "haproxy.cfg"], folder, port):
            yield


@contextmanager
def shipped_haproxy(name: str, ports: dict[str, int], **changes: str) -> Iterator[int]:
    """Run a file of conf/haproxy with other server ports. Yields the port of HAProxy."""
    port = free_port()
    bind = re.compile(r"^( +bind ):\d+$", re.MULTILINE)
    text = bind.sub(rf"\g<1>127.0.0.1:{port}", shipped(f"haproxy/{name}"))
    few = {"maxconn 20000": "maxconn 200"}  # a test may not be allowed to open 40,000 files
    servers = {f":{old}": f":{new}" for old, new in ports.items()}
    with haproxy(changed(text, {**few, **servers, **changes}), port):
        yield port
