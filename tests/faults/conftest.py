"""Fixtures of the fault injection tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.powers import mounted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    with mounted(tmp_path / "disk", "size=64k") as folder:
        yield folder
