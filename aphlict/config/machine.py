"""CPU and memory limits of this process: affinity and control groups (container, systemd unit)."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class ControlGroup(NamedTuple):
    """A control group: its folder and the version of its hierarchy, 1 or 2."""

    folder: Path
    version: int

    def read(self, name: str) -> str:
        """Return the content of a file of the group; "" if it cannot be read."""
        return _text(self.folder / name)


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[ControlGroup]:
    """Yield the control groups that limit "cpu" or "memory" for this process: its own and all its ancestors.

    The limit of each of them applies (cgroups(7)). `root` contains /proc and /sys.
    """
    mounted = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        group = PurePosixPath(name.lstrip("/"))
        # In a container the path may be the host's: then only the root of the mount exists.
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
    """Return the number of usable CPUs: the affinity, or a lower quota of a control group, rounded up.

    The quota is `cpu.max` in cgroup v2, `cpu.cfs_quota_us` in v1. `root` contains /proc and /sys.
    """
    allowed = [math.ceil(quota) for group in control_groups("cpu", root) for quota in _quota(group)]
    return max(1, min([len(os.sched_getaffinity(0)), *allowed]))


def _quota(group: ControlGroup) -> Iterator[float]:
    """Yield the quota in CPUs, if there is one: `max` and -1 mean no limit."""
    old = "cpu.cfs_quota_us", "cpu.cfs_period_us"
    text = group.read("cpu.max") if group.version == 2 else " ".join(map(group.read, old))
    match text.split():
        case [quota, period] if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)
