"""`token`: create a token, for tests and scripts."""

import re
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from aphlict.cli.console import note, out
from aphlict.cli.options import load_settings, utf8
from aphlict.config.settings import ServerSettings
from aphlict.errors import UsageError
from aphlict.tokens.grant import MAX_LIFETIME, make_token
from aphlict.tokens.key_set import load
from aphlict.tokens.keys import Key, read_signing_key

EXAMPLES = {
    "token": (
        "aphlict token --channel demo",
        "aphlict token --channel PHID-USER-1234 --channel 'PHID-TASK-*' --sub alice --ttl 15m",
        "aphlict token --channel demo --instance acme --key 2026-01",
        "aphlict token --channel demo --key /etc/aphlict/private.pem",
    )
}
UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
DEFAULT_TTL = 3600  # seconds


class ConfiguredKey(NamedTuple):
    """A key in the configuration, and its server."""

    key: Key
    server: ServerSettings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--channel",
        dest="channels",
        metavar="NAME",
        action="append",
        required=True,
        help="channel that the client may subscribe to; 'PREFIX*' allows all with this prefix. May be repeated",
    )
    parser.add_argument(
        "--instance", metavar="NAME", type=utf8, help="instance of the channels (default: default)"
    )
    parser.add_argument("--sub", metavar="NAME", help="subject, which the server logs in debug mode")
    parser.add_argument(
        "--ttl",
        metavar="TIME",
        type=ttl,
        default=DEFAULT_TTL,
        help="lifetime: 90s, 15m, 1h, 30d (default: 1h)",
    )
    parser.add_argument(
        "--key",
        metavar="KEY",
        help="file with a private key or secret, or the ID of a secret in auth.keys (default: the first one)",
    )
    parser.add_argument(
        "--audience", metavar="NAME", help="audience (default: auth.audience of the key's server)"
    )


def ttl(text: str) -> int:
    """Accept a lifetime, and return its seconds."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd]?)", text)
    if found is None:
        raise ArgumentTypeError(f"{text} is invalid, expected a lifetime such as 90s, 15m, 1h or 30d")
    lifetime = int(found[1]) * UNIT_SECONDS[found[2]]
    if lifetime > MAX_LIFETIME:
        raise ArgumentTypeError(f"{text} exceeds {MAX_LIFETIME // 86400}d, the maximum lifetime of a token")
    return lifetime


def run(arguments: Namespace) -> int:
    """Create a token. Raises UsageError, ConfigError."""
    path, settings = load_settings(arguments, show=note)
    known = list(_configured_keys(settings.servers))
    signing = _from_file(arguments.key, known) if _is_file(arguments.key) else _choose(arguments.key, known)
    if signing is None:
        note(f"Warning: no server in {path} has this key in auth.keys")
        signing = ConfiguredKey(read_signing_key(arguments.key), settings.servers[0])
    token = make_token(
        signing.key,
        arguments.channels,
        int(time.time() + arguments.ttl),
        instance=arguments.instance,
        sub=arguments.sub,
        audience=arguments.audience or signing.server.auth_audience,
    )
    out(token)
    return 0


def _configured_keys(servers: tuple[ServerSettings, ...]) -> Iterator[ConfiguredKey]:
    for server in servers:
        yield from (ConfiguredKey(key, server) for key in load(server) or ())


def _is_file(text: str | None) -> bool:
    return text is not None and ("/" in text or Path(text).is_file())


def _from_file(path: str, known: list[ConfiguredKey]) -> ConfiguredKey | None:
    """Return the key in a file, with the ID that it has in the configuration: None if it is not there."""
    key = read_signing_key(path)
    for each in known:
        if each.key.thumbprint == key.thumbprint:
            return ConfiguredKey(structs.replace(key, id=each.key.id), each.server)
    return None


def _choose(id: str | None, known: list[ConfiguredKey]) -> ConfiguredKey:
    """Return the secret with this ID, or the first one. Raises UsageError."""
    for each in known:
        if each.key.signer is not None and id in (None, each.key.id):
            return each
    if id is not None and any(each.key.id == id for each in known):
        raise UsageError(f"the key {id} is a public key: set --key to the file of its private key")
    names = ", ".join(str(each.key.id) for each in known if each.key.signer is not None)
    if not names:
        raise UsageError("auth.keys contains no secret: set --key to a file with a private key or secret")
    raise UsageError(f"--key is {id}, expected a file, or one of the secrets in auth.keys: {names}")
