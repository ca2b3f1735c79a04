"""A proxy that is not installed: a reason to skip, but not where everything has to be tested."""

import pytest

from tests.proxies.programs import require

SENTENCE = "no-such-proxy is not installed: apt-get install no-such-package"


def test_a_missing_program_skips_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=SENTENCE):
        require("no-such-proxy", "no-such-package")


def test_a_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=SENTENCE):
        require("no-such-proxy", "no-such-package")
