"""Who made an answer on the way, as far as it can be told, and how each proxy is set right."""

from enum import Enum

from aphlict.doctor.stream import Answer


class Hop(Enum):
    """A program that answers requests; the value is its name in a sentence."""

    APHLICT = "Aphlict itself"
    NGINX = "nginx"
    APACHE = "Apache"
    HAPROXY = "HAProxy"
    AWS = "the AWS load balancer"
    CLOUDFLARE = "Cloudflare"
    OTHER = "a proxy that does not say what it is"


_BY_SERVER = {
    "nginx": Hop.NGINX,
    "openresty": Hop.NGINX,
    "apache": Hop.APACHE,
    "awselb": Hop.AWS,
    "cloudflare": Hop.CLOUDFLARE,
}
_HAPROXY_PAGE = b"<html><body><h1>"  # HAProxy sends no Server header, and its pages begin so

PASS_UPGRADE = {
    Hop.NGINX: "give that location `proxy_http_version 1.1`, `proxy_set_header Upgrade $http_upgrade` and "
    "`proxy_set_header Connection` as conf/nginx/aphlict-location.conf does",
    Hop.APACHE: "add `upgrade=websocket` to the ProxyPass line (2.4.47 or newer, conf/apache/aphlict-path.conf) "
    "or use mod_proxy_wstunnel (conf/apache/aphlict-wstunnel.conf)",
    Hop.HAPROXY: "take every rule that deletes Upgrade or Connection out of the frontend and backend (conf/haproxy)",
}
SEND_HERE = {
    Hop.NGINX: "correct the port in the upstream or proxy_pass of that location",
    Hop.APACHE: "correct the port in the ProxyPass, RewriteRule or BalancerMember line",
    Hop.HAPROXY: "correct the port in the backend's server lines",
}
NO_BUFFER = {
    Hop.NGINX: "set `proxy_buffering off`, and take `proxy_ignore_headers X-Accel-Buffering` and `gzip on` away",
    Hop.APACHE: "add `flushpackets=on` to the ProxyPass line and `SetEnv no-gzip 1` for the path",
    Hop.HAPROXY: "take `option http-buffer-request`, `compression` and filters away for this backend",
}
LONGER = {
    Hop.NGINX: "raise `proxy_read_timeout`",
    Hop.APACHE: "raise `timeout=` of the ProxyPass line",
    Hop.HAPROXY: "raise `timeout tunnel` (in TCP mode `timeout client` and `timeout server`)",
    Hop.AWS: "raise the idle timeout of the load balancer",
}
ANY_UPGRADE = "have it pass the headers Upgrade and Connection, with HTTP/1.1 (docs/proxies.md)"
ANY_SEND = "correct where it passes the requests to"
ANY_NO_BUFFER = "switch its buffering and compression off for this path"
ANY_LONGER = "raise its idle time-out"


def hop_of(answer: Answer) -> Hop:
    """Who made this answer."""
    server = answer.headers.get("server", "").lower()
    for name, hop in _BY_SERVER.items():
        if server.startswith(name):
            return hop
    if not server and answer.body.startswith(_HAPROXY_PAGE):
        return Hop.HAPROXY
    return Hop.APHLICT if not server and answer.error is not None else Hop.OTHER


def name_hop(answer: Answer) -> str:
    """Its name in a sentence."""
    hop = hop_of(answer)
    server = answer.headers.get("server")
    if hop is Hop.OTHER and server:
        return f"a proxy that calls itself {server[:60]!r}"
    return hop.value
