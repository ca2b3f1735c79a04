"""Rules between the keys of a configuration, and checks of the files that it names."""

import itertools
import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from aphlict.config.descriptions import invalid, missing
from aphlict.config.files import Read, is_header_safe
from aphlict.config.origins import read_pattern
from aphlict.config.settings import PeerSettings, ServerSettings, Settings

# "Bad ports", to which browsers refuse to connect: https://fetch.spec.whatwg.org/#port-blocking (ERR_UNSAFE_PORT).
BLOCKED_PORTS = frozenset(
    (
        *(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95),
        *(101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179),
        *(389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587),
        *(601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061),
        *(6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
    )
)


Address = IPv4Address | IPv6Address | str  # str: a host name

_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")

# Attributes that name files, and their configuration keys.
SERVER_FILES = {
    "ssl_key": "ssl.key",
    "ssl_cert": "ssl.cert",
    "ssl_chain": "ssl.chain",
    "ssl_ca": "ssl.ca",
    "admin_secret_file": "admin.secret.file",
}
PEER_FILES = {"ssl_ca": "ssl.ca", "ssl_key": "ssl.key", "ssl_cert": "ssl.cert"}

# Keys that only one type of server supports, with the reason.
ONE_TYPE_ONLY = {
    "proxy.protocol": ("client", "clients connect there"),
    "proxy.trusted": ("client", "clients connect there"),
    "origins": ("client", "pages connect to it"),
    "auth.keys": ("client", "clients present tokens there"),
    "auth.audience": ("client", "clients present tokens there"),
    "ssl.ca": ("admin", "clients have no certificates"),
    "admin.secret": ("admin", "publishers connect there"),
    "admin.secret.file": ("admin", "publishers connect there"),
    "metrics.secret": ("admin", "metrics are read there"),
    "admin.hosts": ("admin", "publishers connect there"),
}


def check_rules(settings: Settings) -> None:
    """Raise ConfigError for the first rule that is broken. Files are not read."""
    _check_types(settings)
    for index, server in enumerate(settings.servers):
        _check_tls(server, f"servers[{index}]")
        _check_type(server, f"servers[{index}]")
        _check_proxies(server, f"servers[{index}]")
        _check_origins(server, f"servers[{index}]")
        _check_admin(server, f"servers[{index}]")
        _check_auth(server, f"servers[{index}]")
    _check_ports(settings)
    _check_peers(settings)
    if settings.limits.ping_timeout <= settings.limits.ping_interval:
        expected = f"more than ping.interval, {settings.limits.ping_interval:g}"
        raise invalid(
            "ping.timeout",
            settings.limits.ping_timeout,
            expected,
            "a client needs time to answer a ping",
        )


def check_files(settings: Settings, read: Read) -> None:
    """Raise ConfigError if a file cannot be read."""
    for index, server in enumerate(settings.servers):
        for attribute, key in SERVER_FILES.items():
            _check_readable(f"servers[{index}].{key}", getattr(server, attribute), read)
        for place, path in enumerate(server.auth_keys):
            _check_readable(f"servers[{index}].auth.keys[{place}]", path, read)
    for index, peer in enumerate(settings.cluster):
        for attribute, key in PEER_FILES.items():
            _check_readable(f"cluster[{index}].{key}", getattr(peer, attribute), read)


def _check_types(settings: Settings) -> None:
    purposes = {"client": "clients connect to it", "admin": "publishers connect to it"}
    for kind, purpose in purposes.items():
        if all(server.type != kind for server in settings.servers):
            raise missing(f'a server of type "{kind}" in servers', f"at least one, since {purpose}")


def _check_tls(server: ServerSettings, key: str) -> None:
    _check_pair(server, key, "TLS needs both")
    both = f"{key}.ssl.key and {key}.ssl.cert beside it"
    if server.ssl_chain and not server.ssl_key:
        raise invalid(f"{key}.ssl.chain", server.ssl_chain, both, "a chain belongs to a certificate")
    if server.ssl_ca and server.type == "admin" and not server.ssl_key:
        raise invalid(f"{key}.ssl.ca", server.ssl_ca, both, "client certificates need TLS")


def _check_pair(one: ServerSettings | PeerSettings, key: str, because: str) -> None:
    pair = {"ssl.key": one.ssl_key, "ssl.cert": one.ssl_cert}
    given = {name: value for name, value in pair.items() if value}
    if len(given) == 1:
        [(name, value)] = given.items()
        other = "ssl.cert" if name == "ssl.key" else "ssl.key"
        raise invalid(f"{key}.{name}", value, f"{key}.{other} beside it", because)


def _check_type(server: ServerSettings, key: str) -> None:
    for name, (kind, because) in ONE_TYPE_ONLY.items():
        value = getattr(server, name.replace(".", "_"))
        if value and server.type != kind:
            value = list(value) if isinstance(value, tuple) else value
            raise invalid(f"{key}.{name}", value, f'it only on a server of type "{kind}"', because)


def _check_origins(server: ServerSettings, key: str) -> None:
    for index, origin in enumerate(server.origins):
        try:
            read_pattern(origin)
        except ValueError as error:
            expected = "an origin such as https://example.com, or *.example.com"
            raise invalid(f"{key}.origins[{index}]", origin, expected, str(error)) from error


def _check_admin(server: ServerSettings, key: str) -> None:
    if server.admin_secret and server.admin_secret_file:
        at = f"{key}.admin.secret.file"
        raise invalid(at, server.admin_secret_file, f"no {key}.admin.secret beside it", "one of the two")
    _check_header_safe(f"{key}.admin.secret", server.admin_secret)
    _check_header_safe(f"{key}.metrics.secret", server.metrics_secret)
    if server.metrics_secret and server.metrics_secret == server.admin_secret:
        at, because = f"{key}.metrics.secret", "who reads metrics could publish"
        raise invalid(at, server.metrics_secret, f"another secret than {key}.admin.secret", because)
    for index, name in enumerate(server.admin_hosts):
        if not _HOST.fullmatch(name):
            expected = "a name such as notify.example.com, without a port"
            raise invalid(f"{key}.admin.hosts[{index}]", name, expected)


def _check_header_safe(key: str, secret: str | None) -> None:
    if secret is not None and not is_header_safe(secret):
        raise invalid(key, secret, "printable ASCII characters without spaces")


def _check_proxies(server: ServerSettings, key: str) -> None:
    for index, network in enumerate(server.proxy_trusted):
        try:
            ip_network(network)
        except ValueError as error:
            expected = "a network such as 10.0.0.0/8 or fd00::/8"
            raise invalid(f"{key}.proxy.trusted[{index}]", network, expected, str(error)) from error


def _check_auth(server: ServerSettings, key: str) -> None:
    if server.auth_audience and not server.auth_keys:
        expected = f"{key}.auth.keys beside it"
        raise invalid(
            f"{key}.auth.audience", server.auth_audience, expected, "without keys no token is required"
        )


def _check_ports(settings: Settings) -> None:
    for (first, one), (second, other) in itertools.combinations(enumerate(settings.servers), 2):
        clash = _find_conflict(one.address, other.address) if one.port == other.port else None
        if clash is not None:
            expected = f"another port than that of servers[{first}]"
            raise invalid(f"servers[{second}].port", other.port, expected, clash)


def _find_conflict(one: str, other: str) -> str | None:
    """Return why two addresses cannot be bound with the same port; None if they can.

    The IPv6 wildcard is bound without IPv4, so another server may have an IPv4 address with the same port.
    """
    first, second = _canonical(one), _canonical(other)
    if first == second:
        return f"both listen on {one}" if one == other else f"{one} is {other}"
    if _includes(first, second):
        return f"{one} includes {other}"
    return f"{other} includes {one}" if _includes(second, first) else None


def _includes(address: Address, other: Address) -> bool:
    if isinstance(address, str) or not address.is_unspecified:
        return False
    return isinstance(other, str) or address.version == other.version  # a name may resolve to any address


def _canonical(address: str) -> Address:
    name = address.casefold().rstrip(".")
    try:
        return ip_address("127.0.0.1" if name == "localhost" else address)
    except ValueError:
        return name


def _check_peers(settings: Settings) -> None:
    seen: dict[tuple[Address, int], int] = {}
    for index, peer in enumerate(settings.cluster):
        first = seen.setdefault((_canonical(peer.host), peer.port), index)
        if first != index:
            expected = f"another host and port than those of cluster[{first}]"
            raise invalid(f"cluster[{index}].host", peer.host, expected, f"both are {peer.host}:{peer.port}")
        if peer.ssl_ca and peer.protocol != "https":
            expected = f'cluster[{index}].protocol "https" beside it'
            raise invalid(f"cluster[{index}].ssl.ca", peer.ssl_ca, expected, "plain HTTP has no certificates")
        _check_pair(peer, f"cluster[{index}]", "a certificate needs its key")
        if peer.ssl_cert and peer.protocol != "https":
            expected = f'cluster[{index}].protocol "https" beside it'
            raise invalid(
                f"cluster[{index}].ssl.cert", peer.ssl_cert, expected, "plain HTTP has no certificates"
            )
        _check_header_safe(f"cluster[{index}].secret", peer.secret)


def _check_readable(key: str, name: str | None, read: Read) -> None:
    if name is None:
        return
    try:
        read(name)
    except OSError as error:
        raise invalid(key, name, "a file that can be read", str(error.strerror)) from error
