"""What the tests with real proxies share."""

from collections.abc import Iterator

import pytest

from tests.support.doctor import Doctor
from tests.support.installation import Installation, installed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A server that runs, the same for all tests of a module."""
    with installed(tmp_path_factory.mktemp("server")) as installation:
        installation.start()
        yield installation


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """The doctor's command."""
    return Doctor(capsys)
