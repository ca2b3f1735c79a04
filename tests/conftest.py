"""What all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.installation import Installation, installed

# No deadline: the machine may have other work. In CI, the same examples each time: new ones are looked for elsewhere.
settings.register_profile("anywhere", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "anywhere")


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """A server's configuration with free ports; whatever runs of it at the end is killed."""
    with installed(tmp_path) as made:
        yield made
