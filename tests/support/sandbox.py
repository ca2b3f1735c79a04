"""Runs a program under what a systemd unit forbids, as far as that is a matter of system calls, without systemd.

python -m tests.support.sandbox UNIT PROGRAM ARGUMENT…
"""

import ctypes
import errno
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ALLOW, FAIL = 0x7FFF0000, 0x00050000  # seccomp(2): SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
GREATER, EQUAL, MASKED = 6, 4, 7  # enum scmp_compare
PROTECTIONS, FAMILY = 2, 0  # which argument of mmap(2) and mprotect(2), and of socket(2)


class Condition(ctypes.Structure):
    """struct scmp_arg_cmp: what an argument has to be for a rule to hold."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class Filter:
    """A filter of libseccomp. `load` cannot be undone."""

    def __init__(self, otherwise: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(otherwise)))

    def add(self, action: int, name: str, *conditions: Condition) -> None:
        """Add a rule for a system call, unless this machine does not have it."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return
        array = (Condition * len(conditions))(*conditions)
        done = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), number, len(conditions), array
        )
        assert done == 0, (name, done)

    def load(self) -> None:
        """Load the filter; the process cannot gain privileges afterwards."""
        assert self._library.seccomp_load(self._context) == 0


def read(unit: Path) -> dict[str, list[str]]:
    """The values of each key of a unit, in order."""
    keys: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            keys.setdefault(key, []).append(value)
    return keys


@cache
def members(group: str) -> frozenset[str]:
    """The system calls in a group of systemd's."""
    if not group.startswith("@"):
        return frozenset([group])
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True
    ).stdout
    words = [line.strip() for line in listed.splitlines()[1:]]
    return frozenset().union(*(members(word) for word in words if word and not word.startswith("#")))


def allowed(filters: Sequence[str]) -> frozenset[str]:
    """The system calls that `SystemCallFilter` allows; its first list is one of allowed calls."""
    calls = members("@default")
    for each in filters:
        if each.startswith("~"):
            calls -= members(each[1:])
        else:
            calls |= members(each)
    return calls


def enter(unit: Path) -> None:
    """Restrict this process as the unit does."""
    keys = read(unit)
    calls = allowed(keys["SystemCallFilter"])
    others = Filter(ALLOW)
    assert keys["MemoryDenyWriteExecute"] == ["yes"]
    both = mmap.PROT_WRITE | mmap.PROT_EXEC
    others.add(FAIL | errno.EPERM, "mmap", Condition(PROTECTIONS, MASKED, both, both))
    for name in ("mprotect", "pkey_mprotect"):
        others.add(FAIL | errno.EPERM, name, Condition(PROTECTIONS, MASKED, mmap.PROT_EXEC, mmap.PROT_EXEC))
    assert keys["RestrictNamespaces"] == ["yes"]
    for name in ("unshare", "setns"):
        others.add(FAIL | errno.EPERM, name)
    families = [int(getattr(socket, name)) for name in keys["RestrictAddressFamilies"][0].split()]
    for family in set(range(max(families))) - set(families):
        others.add(FAIL | errno.EAFNOSUPPORT, "socket", Condition(FAMILY, EQUAL, family, 0))
    others.add(FAIL | errno.EAFNOSUPPORT, "socket", Condition(FAMILY, GREATER, max(families), 0))
    others.load()
    known = Filter(FAIL | int(getattr(errno, keys["SystemCallErrorNumber"][0])))
    for name in sorted(calls):
        known.add(ALLOW, name)
    known.load()


if __name__ == "__main__":
    enter(Path(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
