"""A test is skipped if a proxy is not installed."""

import pytest

from tests.proxies.programs import require


def test_a_missing_program_skips_with_a_reason() -> None:
    with pytest.raises(
        pytest.skip.Exception, match="no-such-proxy is not installed: apt-get install no-such-package"
    ):
        require("no-such-proxy", "no-such-package")
