"""Files with secrets that every user of this machine can read, and the commands that change that."""

import grp
import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from aphlict.config.files import Read, read_file
from aphlict.config.settings import Settings
from aphlict.process.privileges import find_owner
from aphlict.tokens.keys import read_keys

OTHERS = stat.S_IROTH | stat.S_IWOTH


def find_exposed(config: Path, settings: Settings, read: Read = read_file) -> Iterator[str]:
    """A sentence for each file with a secret that any user can read or write. Raises ConfigError.

    A file in a folder that others cannot enter is not open to them, whatever its own mode.
    """
    seen: set[str] = set()
    for key, path in _secrets(config, settings, read):
        if path not in seen and _is_exposed(path):
            yield f"{key} in {path} is open to every user of this machine: {_command(path, settings)}"
        seen.add(path)


def _secrets(config: Path, settings: Settings, read: Read) -> Iterator[tuple[str, str]]:
    """The files that hold a secret, each with the key of the configuration that it is for."""
    for index, server in enumerate(settings.servers):
        at = f"servers[{index}]"
        if server.admin_secret_file:
            yield f"{at}.admin.secret.file", server.admin_secret_file
        elif server.admin_secret:
            yield f"{at}.admin.secret", str(config)
        if server.ssl_key:
            yield f"{at}.ssl.key", server.ssl_key
        for path in server.auth_keys:
            if any(key.signer is not None for key in read_keys(f"{at}.auth.keys", path, read)):
                yield f"{at}.auth.keys", path  # it signs tokens: public keys are for everybody
    for index, peer in enumerate(settings.cluster):
        if peer.secret:
            yield f"cluster[{index}].secret", str(config)
        if peer.ssl_key:
            yield f"cluster[{index}].ssl.key", peer.ssl_key


def _is_exposed(path: str) -> bool:
    real = Path(path).resolve()
    try:
        can_enter = all(each.stat().st_mode & stat.S_IXOTH for each in real.parents)
        return can_enter and bool(real.stat().st_mode & OTHERS)
    except OSError:  # what this user cannot see, others cannot either
        return False


def _command(path: str, settings: Settings) -> str:
    """A command after which the server still can read the file, and others cannot."""
    status, owner = Path(path).stat(), find_owner(settings)
    user, group = (owner.uid, owner.gid) if owner else (os.geteuid(), os.getegid())
    name = shlex.quote(path)
    if user in (0, status.st_uid):
        return f"chmod o= {name}"
    return f"chgrp {_group_name(group)} {name} && chmod g=r,o= {name}"


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
