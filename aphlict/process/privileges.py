"""Whom the server runs as: found before anything is opened, taken on once everything is."""

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from aphlict.config.settings import Settings
from aphlict.errors import CannotWrite, ConfigError


@dataclass(frozen=True)
class Owner:
    """The user and group that the server gives its rights up for."""

    uid: int
    gid: int
    user: str | None

    def take_over(self, descriptor: int) -> None:
        """Give the owner an open file, unless someone could have planted it: not a plain file, or linked."""
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            os.fchown(descriptor, self.uid, self.gid)


def find_owner(settings: Settings) -> Owner | None:
    """Say whom to become, or None to stay who we are. Raises ConfigError for an unknown user or group."""
    user = _user(settings.user) if settings.user else None
    group = _group(settings.group) if settings.group else None
    if os.geteuid() != 0 or (user is None and group is None):
        return None
    gid = group.gr_gid if group else user.pw_gid if user else 0
    return Owner(uid=user.pw_uid if user else 0, gid=gid, user=user.pw_name if user else None)


def find_warning(settings: Settings) -> str | None:
    """The sentence for a server that runs with other rights than it should."""
    if os.geteuid() == 0 and settings.user is None:
        return (
            'the server runs as root: give "user" in the configuration, and it gives up root once it listens'
        )
    if os.geteuid() == 0 or not (settings.user or settings.group):
        return None
    if settings.user and _user(settings.user).pw_uid == os.geteuid():
        return None
    me = os.geteuid()
    return f'"user" and "group" are only heeded when the server is started as root: it stays user {me}'


def drop(owner: Owner) -> None:
    """Become the owner for good; the order matters, as only root may change groups."""
    if owner.user is None:
        os.setgroups([owner.gid])
    else:
        os.initgroups(owner.user, owner.gid)
    os.setresgid(owner.gid, owner.gid, owner.gid)
    os.setresuid(owner.uid, owner.uid, owner.uid)


def make_folder(folder: Path, owner: Owner | None) -> None:
    """Make a folder and those above it that are missing, all the owner's."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            if owner is not None:
                os.chown(each, owner.uid, owner.gid, follow_symlinks=False)
    except OSError as error:
        raise CannotWrite(f"cannot make the folder {folder}: {error.strerror}") from error


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise ConfigError(f'user is "{name}", expected a user of this machine') from error


def _group(name: str) -> grp.struct_group:
    try:
        return grp.getgrnam(name)
    except KeyError as error:
        raise ConfigError(f'group is "{name}", expected a group of this machine') from error
