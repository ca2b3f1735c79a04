"""The manual quotes errors and names functions as the code has them."""

import re

import pytest

from tests.docs.pages import ROOT

SOURCES = " ".join(path.read_text() for path in sorted((ROOT / "aphlict").rglob("*.py")))
WORDS = " ".join(SOURCES.split())
PAGE = ROOT / "docs/troubleshooting.md"
QUOTED = re.findall(r"^\| Aphlict[^|]*?: \*([^*]+)\*", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("sentence", QUOTED)
def test_errors_of_aphlict_are_quoted(sentence: str) -> None:
    fragments = [part.strip() for part in sentence.split("…")]
    assert [each for each in fragments if len(each) > 5 and each not in WORDS] == []


def test_there_are_quotes() -> None:
    assert len(QUOTED) >= 7


@pytest.mark.parametrize(
    ("path", "name"),
    re.findall(
        r"\]\(\.\./(aphlict/[\w/]+\.py)\), `(\w+(?:\.\w+)?)`", (ROOT / "docs/architecture.md").read_text()
    ),
)
def test_named_parts_of_modules_exist(path: str, name: str) -> None:
    definitions = re.findall(r"\b(?:def|class) (\w+)", (ROOT / path).read_text())
    assert set(name.split(".")) <= set(definitions)
