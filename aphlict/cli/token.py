"""`token`: make a token, for trying out and for scripts."""

import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from msgspec import structs

from aphlict.cli import configured
from aphlict.cli.console import remark, say
from aphlict.config.settings import ServerSettings
from aphlict.errors import UsageError
from aphlict.tokens.grant import make_token
from aphlict.tokens.key_set import load
from aphlict.tokens.keys import Key, read_signing_key


class Known(NamedTuple):
    """A key of the configuration, and the server that it is for."""

    key: Key
    server: ServerSettings


def run(arguments: Namespace) -> int:
    """Do it."""
    path, settings = configured.load(arguments, tell=remark)
    known = list(_known(settings.servers))
    signing = _from_file(arguments.key, known) if _is_file(arguments.key) else _choose(arguments.key, known)
    if signing is None:
        remark(f"Warning: no server in {path} has this key in auth.keys")
        signing = Known(read_signing_key(arguments.key), settings.servers[0])
    token = make_token(
        signing.key,
        arguments.channels,
        int(time.time() + arguments.expires),
        instance=arguments.instance,
        sub=arguments.sub,
        audience=arguments.audience or signing.server.auth_audience,
    )
    say(token)
    return 0


def _known(servers: tuple[ServerSettings, ...]) -> Iterator[Known]:
    for server in servers:
        yield from (Known(key, server) for key in load(server) or ())


def _is_file(text: str | None) -> bool:
    return text is not None and ("/" in text or Path(text).is_file())


def _from_file(path: str, known: list[Known]) -> Known | None:
    """The key in a file, under the name that it has in the configuration; None where it has none there."""
    key = read_signing_key(path)
    for each in known:
        if each.key.thumbprint == key.thumbprint:
            return Known(structs.replace(key, id=each.key.id), each.server)
    return None


def _choose(id: str | None, known: list[Known]) -> Known:
    """The first secret of the configuration, or that of the name."""
    for each in known:
        if each.key.signer is not None and id in (None, each.key.id):
            return each
    if id is not None and any(each.key.id == id for each in known):
        raise UsageError(f"the key {id} only proves tokens: name the file of its private key with --key")
    names = ", ".join(str(each.key.id) for each in known if each.key.signer is not None)
    if not names:
        raise UsageError("the configuration has no secret in auth.keys: name a file that signs with --key")
    raise UsageError(
        f"the configuration has the secrets {names} in auth.keys: name one of them, or a file that signs, with --key"
    )
