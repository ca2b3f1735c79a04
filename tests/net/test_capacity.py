"""How many connections there is room for, by default."""

import resource
from pathlib import Path
from typing import Any

import pytest

from aphlict.config import cgroups
from aphlict.config.reading import read
from aphlict.config.settings import Settings
from aphlict.net import capacity
from tests.support.configuration import ADMIN, CLIENT, write_configuration

MIB = 1024 * 1024


@pytest.fixture
def many_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of descriptors that containers often have."""
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1 << 30, 1 << 30))


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of control groups; this process is in `/unit/part`."""
    membership = tmp_path / "membership"
    membership.write_text("4:memory:/another\n0::/unit/part\n")
    (tmp_path / "groups/unit/part").mkdir(parents=True)
    monkeypatch.setattr(cgroups, "MEMBERSHIP", membership)
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path / "groups")
    return tmp_path / "groups"


def settings(folder: Path, **changes: Any) -> Settings:
    return read(write_configuration(folder, **changes), files=False)


def test_what_the_descriptors_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 1 << 30))
    plain = settings(tmp_path)
    room = capacity.for_browsers(plain)
    assert room.bound == "descriptors"
    assert room.connections + capacity.for_publishers(plain) + 96 == 1024


def test_a_limit_that_is_given(tmp_path: Path) -> None:
    assert capacity.for_browsers(settings(tmp_path, limits_connections=7)) == (7, "limits.connections")


@pytest.mark.usefixtures("many_descriptors")
def test_memory_bounds_where_descriptors_do_not(tmp_path: Path) -> None:
    machine = capacity.memory()
    room = capacity.for_browsers(settings(tmp_path))
    assert room.bound == "memory"
    assert room.connections * 4.8 * 1024 < machine  # the kernel's part of an idle connection


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"": "64000000", "unit": "max", "unit/part": "512000000"}, 64_000_000),
        ({"unit": "512000000", "unit/part": "max"}, 512_000_000),
        ({"unit": "512000000", "unit/part": "64000000"}, 64_000_000),
    ],
)
def test_the_memory_of_every_control_group_above_applies(
    groups: Path, limits: dict[str, str], expected: int
) -> None:
    for group, limit in limits.items():
        (groups / group / "memory.max").write_text(f"{limit}\n")
    assert capacity.memory() == expected


@pytest.mark.parametrize("line", ["0::/../elsewhere", "4:memory:/unit", ""])
def test_a_group_that_cannot_be_seen(groups: Path, line: str) -> None:
    """In a container whose namespace does not hold the group, and without cgroup v2."""
    cgroups.MEMBERSHIP.write_text(f"{line}\n")
    (groups / "memory.max").write_text("1000\n")
    (groups / "unit/memory.max").write_text("5\n")
    assert list(cgroups.limits("memory.max")) == ["1000"]
    cgroups.MEMBERSHIP.unlink()
    assert list(cgroups.limits("memory.max")) == ["1000"]


@pytest.mark.usefixtures("many_descriptors")
def test_tls_and_workers_take_their_part(groups: Path, tmp_path: Path) -> None:
    (groups / "unit/part/memory.max").write_text(str(1024 * MIB))
    plain = settings(tmp_path)
    tls = settings(tmp_path, servers=[CLIENT | {"ssl.key": "k", "ssl.cert": "c"}, ADMIN])
    four = settings(tmp_path, workers=4)
    rooms = [capacity.for_browsers(each).connections for each in (plain, tls, four)]
    assert rooms[0] == pytest.approx(122_000, rel=0.01)
    assert rooms[0] / rooms[1] == pytest.approx(22 / 6, rel=0.01)
    assert rooms[0] / rooms[2] == pytest.approx(4, rel=0.02)
    assert capacity.for_publishers(plain) == pytest.approx(rooms[0] / 15, rel=0.01)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_status_has_the_number_of_the_whole_node(tmp_path: Path, workers: int) -> None:
    node = settings(tmp_path, workers=workers)
    room = capacity.for_browsers(node)
    expected = {"connections.max": room.connections * workers, "connections.bound": room.bound}
    assert capacity.status(node) == expected
