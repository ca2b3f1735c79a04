"""Fixtures of the tests of the cluster."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_errors_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An unexpected error fails the test, and so does a warning of a library that reaches a server's log."""
    caplog.set_level(logging.ERROR, logger="tornado.general")  # as in a server, see `logs.install`
    caplog.set_level(logging.INFO, logger="aphlict")
    yield
    for record in caplog.get_records("call"):
        is_ours = record.name.startswith("aphlict")
        assert record.levelno < (logging.ERROR if is_ours else logging.WARNING)
