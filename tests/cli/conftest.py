"""What the tests of the commands share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.installation import Installation, installed


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """A server's configuration with free ports; whatever runs of it at the end is killed."""
    with installed(tmp_path) as made:
        yield made
