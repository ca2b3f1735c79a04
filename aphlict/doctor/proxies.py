"""Which program sent a response, and how to configure each proxy."""

from collections.abc import Mapping
from enum import Enum

from aphlict.doctor.connector import Response


class Hop(Enum):
    """A program that responds to requests. The value is its name in a sentence."""

    APHLICT = "Aphlict"
    NGINX = "nginx"
    APACHE = "Apache"
    HAPROXY = "HAProxy"
    AWS = "the AWS load balancer"
    CLOUDFLARE = "Cloudflare"
    OTHER = "an unknown proxy"


_BY_SERVER = {
    "nginx": Hop.NGINX,
    "openresty": Hop.NGINX,
    "apache": Hop.APACHE,
    "awselb": Hop.AWS,
    "cloudflare": Hop.CLOUDFLARE,
}
_HAPROXY_PAGE = b"<html><body><h1>"  # the start of HAProxy's error pages, which have no Server header

FORWARD_UPGRADE = {
    Hop.NGINX: "set `proxy_http_version 1.1`, `proxy_set_header Upgrade $http_upgrade` and "
    "`proxy_set_header Connection` in that location, as conf/nginx/aphlict-location.conf does",
    Hop.APACHE: "add `upgrade=websocket` to the ProxyPass line (2.4.47 or newer, conf/apache/aphlict-path.conf) "
    "or use mod_proxy_wstunnel (conf/apache/aphlict-wstunnel.conf)",
    Hop.HAPROXY: "remove the rules that delete Upgrade or Connection in the frontend and backend (conf/haproxy)",
    Hop.OTHER: "make it forward the Upgrade and Connection headers, and use HTTP/1.1 (docs/proxies.md)",
}
CORRECT_PORT = {
    Hop.NGINX: "correct the port in the upstream or proxy_pass of that location",
    Hop.APACHE: "correct the port in the ProxyPass, RewriteRule or BalancerMember line",
    Hop.HAPROXY: "correct the port in the backend's server lines",
    Hop.OTHER: "correct the address to which it forwards",
}
DISABLE_BUFFERING = {
    Hop.NGINX: "set `proxy_buffering off`, and remove `proxy_ignore_headers X-Accel-Buffering` and `gzip on`",
    Hop.APACHE: "add `flushpackets=on` to the ProxyPass line and `SetEnv no-gzip 1` for the path",
    Hop.HAPROXY: "remove `option http-buffer-request`, `compression` and filters from this backend",
    Hop.OTHER: "disable its buffering and compression for this path",
}
RAISE_TIMEOUT = {
    Hop.NGINX: "raise `proxy_read_timeout`",
    Hop.APACHE: "raise `timeout=` of the ProxyPass line",
    Hop.HAPROXY: "raise `timeout tunnel` (in TCP mode `timeout client` and `timeout server`)",
    Hop.AWS: "raise the idle timeout of the load balancer",
    Hop.OTHER: "raise its idle timeout",
}
EXAMPLES = {
    Hop.NGINX: "conf/nginx",
    Hop.APACHE: "conf/apache",
    Hop.HAPROXY: "conf/haproxy",
    Hop.OTHER: "conf",
}


def hop_of(response: Response) -> Hop:
    """Return the program that sent a response."""
    server = response.headers.get("server", "").lower()
    for name, hop in _BY_SERVER.items():
        if server.startswith(name):
            return hop
    if not server and response.body.startswith(_HAPROXY_PAGE):
        return Hop.HAPROXY
    return Hop.APHLICT if not server and response.error is not None else Hop.OTHER


def hop_name(response: Response) -> str:
    """Return its name in a sentence."""
    hop = hop_of(response)
    server = response.headers.get("server")
    return f"the proxy {server[:60]!r}" if hop is Hop.OTHER and server else hop.value


def choose(table: Mapping[Hop, str], hop: Hop) -> str:
    """Return the entry for a program, or that for any other."""
    return table.get(hop, table[Hop.OTHER])
