"""Fixtures of the tests of ports."""

import pytest

from tests.support.clocks import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which the connections of all nodes go that are made from here on."""
    made = Clock()
    monkeypatch.setattr("aphlict.server.server.time", made)
    return made
