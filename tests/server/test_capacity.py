"""How many connections there is room for, by default."""

import resource
from pathlib import Path
from typing import Any

import psutil
import pytest

from aphlict.config.loader import load
from aphlict.config.settings import Settings
from aphlict.server import limits
from tests.support.configuration import ADMIN, CLIENT, write_configuration

MIB = 1024 * 1024


@pytest.fixture
def many_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of descriptors that containers often have."""
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1 << 30, 1 << 30))


def machine(root: Path, groups: str, **files: str) -> Path:
    """A root whose process is in these control groups; `files` are under /sys/fs/cgroup."""
    for name, text in {
        "proc/self/cgroup": groups,
        **{f"sys/fs/cgroup/{key}": files[key] for key in files},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text and f"{text}\n")
    return root


def settings(folder: Path, **changes: Any) -> Settings:
    return load(write_configuration(folder, **changes), files=False)


def test_what_the_descriptors_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 1 << 30))
    plain = settings(tmp_path)
    room = limits.max_clients(plain)
    assert room.bound == "descriptors"
    assert room.connections + limits.max_publishers(plain) + 96 == 1024


def test_a_limit_that_is_given(tmp_path: Path) -> None:
    assert limits.max_clients(settings(tmp_path, connections=7)) == (7, "limits.connections")


@pytest.mark.usefixtures("many_descriptors")
def test_memory_bounds_where_descriptors_do_not(tmp_path: Path) -> None:
    machine = limits.available_memory()
    room = limits.max_clients(settings(tmp_path))
    assert room.bound == "memory"
    assert room.connections * 4.8 * 1024 < machine  # the kernel's part of an idle connection


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/unit/part", {"memory.max": "64", "unit/memory.max": "max", "unit/part/memory.max": "512"}, 64),
        ("0::/unit/part", {"unit/memory.max": "512", "unit/part/memory.max": "max"}, 512),
        ("0::/unit/part", {"unit/memory.max": "512", "unit/part/memory.max": "64"}, 64),
        ("0::/of/the/host", {"memory.max": "64", "unit/memory.max": "5"}, 64),
        ("0::/../elsewhere", {"memory.max": "64", "unit/memory.max": "5"}, 64),
        ("5:cpu:/unit\n4:memory:/unit\n0::/", {"memory/unit/memory.limit_in_bytes": "64"}, 64),
        ("4:memory:/unit", {"memory/memory.limit_in_bytes": "64", "memory.max": "5"}, 64),
    ],
)
def test_the_memory_of_every_control_group_above_applies(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert limits.available_memory(machine(tmp_path, groups, **files)) == expected


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("", {"memory.max": "64"}),
        ("0::/", {}),
        ("0::/", {"memory.max": "max"}),
        ("4:memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712"}),
    ],
)
def test_without_a_limit_it_is_the_memory_of_the_machine(
    tmp_path: Path, groups: str, files: dict[str, str]
) -> None:
    assert limits.available_memory(machine(tmp_path, groups, **files)) == psutil.virtual_memory().total


@pytest.mark.usefixtures("many_descriptors")
def test_tls_and_workers_take_their_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "available_memory", lambda: 1024 * MIB)
    plain = settings(tmp_path)
    tls = settings(tmp_path, servers=[CLIENT | {"ssl.key": "k", "ssl.cert": "c"}, ADMIN])
    four = settings(tmp_path, workers=4)
    rooms = [limits.max_clients(each).connections for each in (plain, tls, four)]
    assert rooms[0] == pytest.approx(122_000, rel=0.01)
    assert rooms[0] / rooms[1] == pytest.approx(22 / 6, rel=0.01)
    assert rooms[0] / rooms[2] == pytest.approx(4, rel=0.02)
    assert limits.max_publishers(plain) == pytest.approx(rooms[0] / 15, rel=0.01)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_status_has_the_number_of_the_whole_node(tmp_path: Path, workers: int) -> None:
    node = settings(tmp_path, workers=workers)
    room = limits.max_clients(node)
    expected = {"connections.max": room.connections * workers, "connections.bound": room.bound}
    assert limits.capacity_status(node) == expected
