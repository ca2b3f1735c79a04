"""The user that the server runs as, dropping privileges, and files that root creates for that user."""

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
from aphlict.log_events import RUNS_AS_ROOT, USER_IGNORED, Notice

MAX_PATH_STEPS = 256  # names in a path, symbolic links followed (the kernel follows 40)


@dataclass(frozen=True)
class Owner:
    """The user and group that the server runs as after it has been started as root."""

    uid: int
    gid: int
    user: str | None

    def take_over(self, descriptor: int) -> None:
        """Change the owner of an open file of root, if it is a regular file without hard links."""
        status = os.fstat(descriptor)
        if status.st_uid == 0 and is_plain(status):
            os.fchown(descriptor, self.uid, self.gid)


def is_plain(status: os.stat_result) -> bool:
    """Whether it is a regular file without hard links: another link could be a file elsewhere."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def find_owner(settings: Settings) -> Owner | None:
    """The user and group to switch to; None to stay. Raises ConfigError for an unknown user or group."""
    user = _user(settings.user) if settings.user else None
    group = _group(settings.group) if settings.group else None
    if os.geteuid() != 0 or (user is None and group is None):
        return None
    gid = group.gr_gid if group else user.pw_gid if user else 0
    return Owner(uid=user.pw_uid if user else 0, gid=gid, user=user.pw_name if user else None)


def find_warning(settings: Settings) -> Notice | None:
    """A warning if the server runs as root, or not as `user`."""
    if os.geteuid() == 0 and settings.user is None:
        return Notice(RUNS_AS_ROOT)
    if os.geteuid() == 0 or not (settings.user or settings.group):
        return None
    if settings.user and _user(settings.user).pw_uid == os.geteuid():
        return None
    return Notice(USER_IGNORED, os.geteuid())


def drop(owner: Owner) -> None:
    """Become the owner for good. Groups come first, because only root may change them."""
    _set_groups(owner)
    os.setresgid(owner.gid, owner.gid, owner.gid)
    os.setresuid(owner.uid, owner.uid, owner.uid)


@contextmanager
def acting(owner: Owner | None) -> Iterator[None]:
    """Use the privileges of the owner in the block, if this process is root; None changes nothing."""
    if owner is None or os.geteuid() != 0:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    _set_groups(owner)
    os.setegid(owner.gid)
    os.seteuid(owner.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def _set_groups(owner: Owner) -> None:
    if owner.user is None:
        os.setgroups([owner.gid])
    else:
        os.initgroups(owner.user, owner.gid)


def is_out_of_reach(folder: Path, owner: Owner) -> bool:
    """Whether the owner can modify neither the folder nor any part of the path to it: all of it belongs to root.

    Only there may root create files for the owner and change their owner: elsewhere, a link could replace a folder
    between any two steps. A folder is checked after those above it, so that nobody can move it meanwhile.
    """
    current, rest = Path("/"), list(reversed(folder.absolute().parts[1:]))
    for _ in range(MAX_PATH_STEPS):
        try:
            status = os.lstat(current)
        except OSError:
            return False
        if status.st_uid != 0:
            return False
        if stat.S_ISLNK(status.st_mode):
            target = current.readlink()
            rest += reversed(target.parts[target.is_absolute() :])
            current = Path("/") if target.is_absolute() else current.parent
        elif _can_write(owner, status) and not (rest and status.st_mode & stat.S_ISVTX):
            return False  # with the sticky bit, only root can rename what belongs to root (rename(2))
        elif not rest:
            return True
        if rest:
            part = rest.pop()
            current = current.parent if part == ".." else current / part
    return False


def _can_write(owner: Owner, status: os.stat_result) -> bool:
    """Whether the owner, or every user, can modify a folder of root."""
    groups = [owner.gid] if owner.user is None else os.getgrouplist(owner.user, owner.gid)
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid in groups
    return bool(by_group or status.st_mode & stat.S_IWOTH)


def make_folder(folder: Path, owner: Owner | None) -> None:
    """Create a folder and its missing parents for the owner. Raises FileError.

    In folders that are out of the owner's reach, root creates them; elsewhere, they are created with the owner's
    privileges.
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
        raise FileError(f"cannot create the folder {folder}: {error.strerror}") from error


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
