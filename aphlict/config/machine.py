"""The control groups that this process is in: those of a container, or of a systemd unit."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class ControlGroup(NamedTuple):
    """The folder of a group, and the version of its hierarchy: 1 or 2."""

    folder: Path
    version: int

    def read(self, name: str) -> str:
        """The content of a file; nothing where it cannot be read."""
        return _text(self.folder / name)


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[ControlGroup]:
    """The groups that limit what this process gets of "cpu" or "memory": its own, and each one above it.

    A limit of any of them applies (cgroups(7)). `root` has /proc and /sys.
    """
    mounted = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        group = PurePosixPath(name.lstrip("/"))
        # In a container the name may be that of the host: then only the root of what is mounted exists.
        for each in (group, *group.parents):
            if not controllers:
                yield ControlGroup(mounted / each, 2)
            elif controller in controllers.split(","):
                yield ControlGroup(mounted / controller / each, 1)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def count_cpus(root: Path = Path("/")) -> int:
    """The processors that the process may run on, or as many as its control groups allow the time of, rounded up.

    `cpu.max` of cgroup v2, `cpu.cfs_quota_us` of v1, of the group and those above it. `root` has /proc and /sys.
    """
    allowed = [math.ceil(quota) for group in control_groups("cpu", root) for quota in _quota(group)]
    return max(1, min([len(os.sched_getaffinity(0)), *allowed]))


def _quota(group: ControlGroup) -> Iterator[float]:
    """Microseconds of processor time in a period; `max` and -1 mean: no limit."""
    old = "cpu.cfs_quota_us", "cpu.cfs_period_us"
    text = group.read("cpu.max") if group.version == 2 else " ".join(map(group.read, old))
    match text.split():
        case [quota, period] if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)
