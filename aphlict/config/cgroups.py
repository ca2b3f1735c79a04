"""The control groups that this process is in: those of a container, or of a systemd unit."""

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


def find_groups(controller: str, root: Path = Path("/")) -> Iterator[ControlGroup]:
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
