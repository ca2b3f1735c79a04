"""The console refers to sections of the manual that exist."""

import re

import pytest

from tests.docs.pages import ROOT

CONSOLE = ROOT / "aphlict" / "console"
REFERENCE = re.compile(r'"(docs/\w+\.md)(?:, ([^"`]+))?"')
REFERENCES = sorted({found for path in CONSOLE.glob("*.js") for found in REFERENCE.findall(path.read_text())})


@pytest.mark.parametrize(("page", "section"), REFERENCES)
def test_a_reference_to_the_manual(page: str, section: str) -> None:
    headings = [
        line.lstrip("# ").replace('"', "”")
        for line in (ROOT / page).read_text().splitlines()
        if line.startswith("#")
    ]
    heading, _, code = section.partition(": ")
    assert not heading or heading.replace("“", "”") in headings
    assert not code or f"`{code}`" in (ROOT / page).read_text()


def test_there_are_references() -> None:
    assert len(REFERENCES) > 10


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere() -> None:
    """Its policy would block it."""
    page = (CONSOLE / "index.html").read_text()
    assert not re.search(
        r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|\b(?:src|href)=\"(?:https?:|//)", page
    )


def test_no_script_inserts_markup() -> None:
    ways = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|setHTML")
    for path in CONSOLE.glob("*.js"):
        assert not ways.search(path.read_text()), path
