"""How many workers `"workers": "auto"` means: processors, and the time that a container may use of them."""

import os
from pathlib import Path

import pytest

from aphlict.config.loader import load
from aphlict.config.machine import count_cpus
from tests.support.configuration import write_configuration

MANY = len(os.sched_getaffinity(0))
V2, V1 = "0::{}\n", "4:memory:/x\n3:cpu,cpuacct:{}\n0::/\n"


def machine(root: Path, groups: str, **quotas: str) -> Path:
    """A root whose process is in these groups; `quotas` are the contents of files under /sys/fs/cgroup."""
    files = {"proc/self/cgroup": groups} | {f"sys/fs/cgroup/{name}": text for name, text in quotas.items()}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "quotas", "expected"),
    [
        ("", {}, MANY),
        (V2.format("/"), {}, MANY),
        (V2.format("/"), {"cpu.max": "max 100000\n"}, MANY),
        (V2.format("/"), {"cpu.max": "100000 100000\n"}, 1),
        (V2.format("/"), {"cpu.max": "20000 100000\n"}, 1),
        (V2.format("/"), {"cpu.max": "100001 100000\n"}, min(MANY, 2)),
        (V2.format("/a/b"), {"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1),
        (V2.format("/of/the/host"), {"cpu.max": "100000 100000\n"}, 1),
        (V2.format("/"), {"cpu.max": "nonsense\n"}, MANY),
        (V1.format("/a"), {"cpu/a/cpu.cfs_quota_us": "90000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 1),
        (V1.format("/a"), {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, MANY),
        (V1.format("/a"), {"cpu/cpu.cfs_quota_us": "10000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_a_quota_counts(tmp_path: Path, groups: str, quotas: dict[str, str], expected: int) -> None:
    assert count_cpus(machine(tmp_path, groups, **quotas)) == expected


def test_auto_is_a_number_from_the_start(tmp_path: Path) -> None:
    """A quota that changes while the server runs must not change what it believes its number of workers to be."""
    settings = load(write_configuration(tmp_path, workers="auto"))
    assert settings.workers == settings.processes == count_cpus()
