"""Limits of the control group (cgroup v2) that this process is in: that of a container, or of a systemd unit."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
UNIFIED = "0::"  # what the line of cgroup v2 begins with (cgroups(7))


def limits(name: str) -> Iterator[str]:
    """The contents of a file such as `memory.max`, of this process's group and of each group above it.

    A limit of any of them applies. Nothing where there is no cgroup v2, or where the files cannot be read.
    """
    group = _group()
    for folder in (group, *group.parents):
        try:
            yield (MOUNT / folder.relative_to("/") / name).read_text("ascii").strip()
        except (OSError, ValueError):  # the root has no limits
            continue


def _group() -> PurePosixPath:
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        lines = []
    path = next((line.removeprefix(UNIFIED) for line in lines if line.startswith(UNIFIED)), "/")
    # A group outside of the container's own namespace begins with `/..`: only the mounted root can be read.
    return PurePosixPath("/" if ".." in path.split("/") or not path.startswith("/") else path)
