"""How many processors this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from aphlict.config.cgroups import ControlGroup, find_groups


def count_processors(root: Path = Path("/")) -> int:
    """The processors that the process may run on, or as many as its control groups allow the time of, rounded up.

    `cpu.max` of cgroup v2, `cpu.cfs_quota_us` of v1, of the group and those above it. `root` has /proc and /sys.
    """
    allowed = [math.ceil(quota) for group in find_groups("cpu", root) for quota in _quota(group)]
    return max(1, min([len(os.sched_getaffinity(0)), *allowed]))


def _quota(group: ControlGroup) -> Iterator[float]:
    """Microseconds of processor time in a period; `max` and -1 mean: no limit."""
    old = "cpu.cfs_quota_us", "cpu.cfs_period_us"
    text = group.read("cpu.max") if group.version == 2 else " ".join(map(group.read, old))
    match text.split():
        case [quota, period] if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)
