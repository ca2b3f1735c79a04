"""docs/cluster.md quotes the log lines about peers as the code writes them."""

import re

import pytest

from tests.docs.pages import ROOT

TEXT = (ROOT / "docs/cluster.md").read_text()
FILES = [ROOT / "aphlict/log_events.py", *sorted((ROOT / "aphlict/cluster").glob("*.py"))]
SOURCES = " ".join(path.read_text() for path in FILES)
VARYING = re.compile(r"…|\b(?:CAUSE|PROTOCOL|HOST|PORT|N|F|ID)\b|\d+(?:xx)?|[:;,()]")
LINES = re.findall(
    r"`([^`]+)`",
    " ".join(re.findall(r"^\| (.*?) \|", TEXT.split("\n## Peers in the log\n")[1], re.MULTILINE)),
)


@pytest.mark.parametrize("line", LINES)
def test_lines_are_those_of_the_code(line: str) -> None:
    fragments = [part.strip() for part in VARYING.split(line)]
    assert [each for each in fragments if len(each) > 5 and each not in SOURCES] == []


def test_there_are_lines() -> None:
    assert len(LINES) > 20
