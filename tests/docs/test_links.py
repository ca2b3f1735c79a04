"""Every link in the manual has a target, and the index lists every page."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT

CODE = re.compile(r"^( *)```.*?^\1```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MENTION = re.compile(r"\bdocs/[\w/]+\.(?:md|html)")
SOURCES = ("aphlict", "bin", "conf", "examples", "benchmarks")
TEXTS = {".py", ".md", ".js", ".ts", ".sh", ".json", ".conf", ".cfg", ".service", ".html", ".php", ""}


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [pytest.param(each, id=each.name) for each in PAGES])
def test_links_have_targets(page: Path) -> None:
    dead = [link for link in LINK.findall(CODE.sub("", page.read_text())) if not has_target(page, link)]
    assert dead == []


def has_target(page: Path, link: str) -> bool:
    if "://" in link or link.startswith("mailto:"):
        return True
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    return target.exists() and (not anchor or anchor in anchors(target))


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text()
    missing = [page.name for page in PAGES if page.parent.name == "docs" and f"]({page.name})" not in index]
    assert missing in ([], ["README.md"]), "docs/README.md is the list of all pages"


def test_pages_mentioned_in_the_code_exist() -> None:
    files = [
        path
        for folder in SOURCES
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in TEXTS and "node_modules" not in path.parts
    ]
    named = {(mention, path) for path in [*files, *PAGES] for mention in MENTION.findall(path.read_text())}
    dead = sorted(
        f"{path.relative_to(ROOT)}: {mention}" for mention, path in named if not (ROOT / mention).exists()
    )
    assert dead == []
