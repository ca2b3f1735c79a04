"""What all tests of the cluster share."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_errors_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An error that nobody expected fails the test; so does what Tornado says of its own accord."""
    caplog.set_level(logging.INFO, logger="aphlict")
    yield
    for record in caplog.get_records("call"):
        is_ours = record.name.startswith("aphlict")
        # Tornado: the first for the server in the test, the second where a server refuses a certificate.
        is_expected = record.getMessage().startswith(("SSL Error", "error on read: [SSL"))
        assert is_expected or record.levelno < (logging.ERROR if is_ours else logging.WARNING)
