"""Whom the server runs as: found before anything is opened, taken on once everything is."""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aphlict.config.settings import Settings
from aphlict.errors import ConfigError, FileError

MOST_STEPS = 256  # names in a path, links followed: more than PATH_MAX and the kernel's 40 links make likely


@dataclass(frozen=True)
class Owner:
    """The user and group that the server gives its rights up for."""

    uid: int
    gid: int
    user: str | None

    def take_over(self, descriptor: int) -> None:
        """Give the owner an open file of root's, unless it is not a plain file, or has several names."""
        status = os.fstat(descriptor)
        if status.st_uid == 0 and is_plain(status):
            os.fchown(descriptor, self.uid, self.gid)


def is_plain(status: os.stat_result) -> bool:
    """Whether this is a plain file with one name: another name could be that of a file elsewhere."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


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
    _take_groups(owner)
    os.setresgid(owner.gid, owner.gid, owner.gid)
    os.setresuid(owner.uid, owner.uid, owner.uid)


@contextmanager
def acting(owner: Owner | None) -> Iterator[None]:
    """Have the rights of the owner for a while, where this process is root; None changes nothing."""
    if owner is None or os.geteuid() != 0:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    _take_groups(owner)
    os.setegid(owner.gid)
    os.seteuid(owner.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def _take_groups(owner: Owner) -> None:
    if owner.user is None:
        os.setgroups([owner.gid])
    else:
        os.initgroups(owner.user, owner.gid)


def is_out_of_reach(folder: Path, owner: Owner) -> bool:
    """Whether the owner can change neither where this path leads nor what is in the folder: all of it is root's.

    Only there may root make and change files for the owner: elsewhere a link could take the place of a folder
    between any two steps. Each folder is looked at once those above it are known to be out of reach, so that
    nobody can move it meanwhile.
    """
    place, todo = Path("/"), list(reversed(folder.absolute().parts[1:]))
    for _ in range(MOST_STEPS):
        try:
            status = os.lstat(place)
        except OSError:
            return False
        if status.st_uid != 0:
            return False
        if stat.S_ISLNK(status.st_mode):
            target = place.readlink()
            todo += reversed(target.parts[target.is_absolute() :])
            place = Path("/") if target.is_absolute() else place.parent
        elif _can_write(owner, status) and not (todo and status.st_mode & stat.S_ISVTX):
            return False  # in a folder with the sticky bit, what is root's cannot be moved (rename(2))
        elif not todo:
            return True
        if todo:
            part = todo.pop()
            place = place.parent if part == ".." else place / part
    return False


def _can_write(owner: Owner, status: os.stat_result) -> bool:
    """Whether the owner, or any stranger, can change what is in a folder of root's."""
    groups = [owner.gid] if owner.user is None else os.getgrouplist(owner.user, owner.gid)
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid in groups
    return bool(by_group or status.st_mode & stat.S_IWOTH)


def make_folder(folder: Path, owner: Owner | None) -> None:
    """Make a folder and those above it that are missing, all the owner's. Raises FileError.

    Root makes what is in a folder that is out of the owner's reach; the rest is made with the owner's rights.
    """
    try:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        for each in reversed(missing):
            if owner is not None and is_out_of_reach(each.parent, owner):
                each.mkdir(exist_ok=True)
                os.chown(each, owner.uid, owner.gid, follow_symlinks=False)
            else:
                with acting(owner):
                    each.mkdir(exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {folder}: {error.strerror}") from error


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
