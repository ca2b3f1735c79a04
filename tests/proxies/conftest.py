"""Fixtures of the tests behind proxies."""

from collections.abc import Iterator

import pytest

from tests.support.doctor import Doctor
from tests.support.installation import Installation, installed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running server, shared by the tests of a module."""
    with installed(tmp_path_factory.mktemp("server")) as installation:
        installation.start()
        yield installation


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """The doctor as a command."""
    return Doctor(capsys)
