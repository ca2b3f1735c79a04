"""How many processors this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def count_processors(root: Path = Path("/")) -> int:
    """The processors that the process may run on, or as many as its control groups allow the time of, rounded up.

    `cpu.max` of cgroup v2, `cpu.cfs_quota_us` of v1, of the group and those above it. `root` has /proc and /sys.
    """
    allowed = [math.ceil(each) for each in _quotas(root)]
    return max(1, min([len(os.sched_getaffinity(0)), *allowed]))


def _quotas(root: Path) -> Iterator[float]:
    mounted = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        group = PurePosixPath(name.lstrip("/"))
        # In a container the name may be that of the host: then only the root of what is mounted exists.
        for each in (group, *group.parents):
            if not controllers:
                yield from _quota(_text(mounted / each / "cpu.max"))
            elif "cpu" in controllers.split(","):
                folder = mounted / "cpu" / each
                quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
                yield from _quota(f"{quota} {period}")


def _quota(text: str) -> Iterator[float]:
    """Microseconds of processor time in a period; `max` and -1 mean: no limit."""
    match text.split():
        case [quota, period] if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def _text(path: Path) -> str:
    """The content of a file; nothing where it is not there."""
    try:
        return path.read_text()
    except OSError:
        return ""
