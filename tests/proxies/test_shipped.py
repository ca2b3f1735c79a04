"""The configurations in conf/: complete in the manual, and accepted by the proxies."""

import subprocess
from pathlib import Path

import pytest

from tests.proxies.programs import require
from tests.proxies.shipped import CONF

MANUAL = (CONF.parent / "docs" / "proxies.md").read_text()
FILES = sorted(path for name in ("nginx", "apache", "haproxy") for path in (CONF / name).iterdir())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_manual_links_to_every_file(path: Path) -> None:
    assert f"(../conf/{path.parent.name}/{path.name})" in MANUAL


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_default_port_is_that_of_the_default_configuration(path: Path) -> None:
    text = path.read_text()
    if "127.0.0.1:22" in text:
        assert "127.0.0.1:22280" in text


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.suffix == ".cfg"], ids=lambda path: path.name
)
def test_haproxy_has_nothing_to_say_against_it(path: Path) -> None:
    command = [require("haproxy", "haproxy"), "-c", "-f", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0
    assert "WARNING" not in done.stderr
