"""What no single key can say: rules between the keys of a configuration, and about the files that it names."""

import itertools
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

from aphlict.config.mistakes import missing, wrong
from aphlict.config.settings import ServerSettings, Settings

Address = IPv4Address | IPv6Address | str  # a name where it is none of the others

FILE_KEYS = {"ssl_key": "ssl.key", "ssl_cert": "ssl.cert", "ssl_chain": "ssl.chain"}


def check_rules(settings: Settings) -> None:
    """Raise ConfigError for the first rule that is broken. No file is touched."""
    _check_types(settings)
    for index, server in enumerate(settings.servers):
        _check_tls(server, f"servers[{index}]")
        _check_proxies(server, f"servers[{index}]")
    _check_ports(settings)
    _check_peers(settings)
    if settings.ping_timeout <= settings.ping_interval:
        expected = f"more than ping.interval, {settings.ping_interval:g}"
        raise wrong(
            "ping.timeout", settings.ping_timeout, expected, "a browser must have time to answer a ping"
        )


def check_files(settings: Settings) -> None:
    """Raise ConfigError where a file that is needed cannot be read."""
    for index, server in enumerate(settings.servers):
        for attribute, key in FILE_KEYS.items():
            _check_readable(f"servers[{index}].{key}", getattr(server, attribute))
    for index, peer in enumerate(settings.cluster):
        _check_readable(f"cluster[{index}].ssl.ca", peer.ssl_ca)


def _check_types(settings: Settings) -> None:
    purposes = {"client": "browsers connect to it", "admin": "messages are posted to it"}
    for kind, purpose in purposes.items():
        if all(server.type != kind for server in settings.servers):
            raise missing(f'a server of type "{kind}" in servers', f"at least one, since {purpose}")


def _check_tls(server: ServerSettings, key: str) -> None:
    pair = {"ssl.key": server.ssl_key, "ssl.cert": server.ssl_cert}
    given = {name: value for name, value in pair.items() if value}
    if len(given) == 1:
        [(name, value)] = given.items()
        other = "ssl.cert" if name == "ssl.key" else "ssl.key"
        raise wrong(f"{key}.{name}", value, f"{key}.{other} beside it", "TLS needs both; no TLS, neither")
    if server.ssl_chain and not given:
        expected = f"{key}.ssl.key and {key}.ssl.cert beside it"
        raise wrong(f"{key}.ssl.chain", server.ssl_chain, expected, "a chain belongs to a certificate")


def _check_proxies(server: ServerSettings, key: str) -> None:
    given = {"proxy.protocol": server.proxy_protocol, "proxy.trusted": list(server.proxy_trusted)}
    for name, value in given.items():
        if value and server.type != "client":
            raise wrong(
                f"{key}.{name}", value, 'it on a server of type "client" alone', "browsers come there"
            )
    for index, network in enumerate(server.proxy_trusted):
        try:
            ip_network(network)
        except ValueError as error:
            expected = "a network such as 10.0.0.0/8 or fd00::/8"
            raise wrong(f"{key}.proxy.trusted[{index}]", network, expected, str(error)) from error


def _check_ports(settings: Settings) -> None:
    for (first, one), (second, other) in itertools.combinations(enumerate(settings.servers), 2):
        clash = _find_clash(one.address, other.address) if one.port == other.port else None
        if clash is not None:
            expected = f"another port than that of servers[{first}]"
            raise wrong(f"servers[{second}].port", other.port, expected, clash)


def _find_clash(one: str, other: str) -> str | None:
    """Why two addresses cannot be bound with one port; None where they can.

    The IPv6 wildcard leaves IPv4 to another server of the same port that names an IPv4 address.
    """
    first, second = _normal(one), _normal(other)
    if first == second:
        return f"both listen on {one}" if one == other else f"{one} is {other}"
    if _includes(first, second):
        return f"{one} includes {other}"
    return f"{other} includes {one}" if _includes(second, first) else None


def _includes(address: Address, other: Address) -> bool:
    if isinstance(address, str) or not address.is_unspecified:
        return False
    return isinstance(other, str) or address.version == other.version  # a name can be any address


def _normal(address: str) -> Address:
    name = address.casefold().rstrip(".")
    try:
        return ip_address("127.0.0.1" if name == "localhost" else address)
    except ValueError:
        return name


def _check_peers(settings: Settings) -> None:
    seen: dict[tuple[Address, int], int] = {}
    for index, peer in enumerate(settings.cluster):
        first = seen.setdefault((_normal(peer.host), peer.port), index)
        if first != index:
            expected = f"another host and port than those of cluster[{first}]"
            raise wrong(f"cluster[{index}].host", peer.host, expected, f"both are {peer.host}:{peer.port}")
        if peer.ssl_ca and peer.protocol != "https":
            expected = f'cluster[{index}].protocol "https" beside it'
            raise wrong(f"cluster[{index}].ssl.ca", peer.ssl_ca, expected, "plain HTTP proves nothing")


def _check_readable(key: str, name: str | None) -> None:
    if name is None:
        return
    try:
        with Path(name).open("rb") as file:
            file.read(1)
    except OSError as error:
        raise wrong(key, name, "a file that can be read", str(error.strerror)) from error
