"""One Prometheus for all tests of this folder."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.monitoring.prometheus import Prometheus, prometheus
from tests.monitoring.scene import Faults, Scene


@pytest.fixture(scope="package")
def lonely() -> Iterator[Prometheus]:
    """A Prometheus that scrapes no server."""
    with prometheus() as running:
        yield running


@pytest.fixture(scope="package")
def scene(tmp_path_factory: pytest.TempPathFactory, lonely: Prometheus) -> Iterator[Scene]:
    """Servers and their faults, which have begun; `lonely` has run for the same time."""
    with ExitStack() as stack:
        made = Scene(tmp_path_factory.mktemp("monitoring"), stack)
        Faults(made, stack).cause_all()
        yield made
