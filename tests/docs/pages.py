"""Parsing the pages of the manual, and comparing their examples with real output."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)

# Values that differ in every run, and their replacement in both texts before they are compared.
_VARYING = [
    (re.compile(r'("fingerprint": ?)"[A-Za-z0-9]{16}"'), r'\1"…"'),
    (re.compile(r'("uniqueID": ?)"[0-9a-f]{32}"'), r'\1"…"'),
    (re.compile(r'("last": ?)"~[^"]*"'), r'\1"…"'),
    (re.compile(r'("(?:uptime|time|pid|history\.age|connections\.max)": ?)\d+'), r"\1…"),
    (re.compile(r'("connections.bound": ?)"(?:descriptors|memory)"'), r'\1"…"'),
    (re.compile(r"(Using the configuration ).*"), r"\1…"),
    (re.compile(r'(?i)(etag: )"\w+"'), r"\1…"),
    (re.compile(r"(?m)^(Date: ).*"), r"\1…"),
    (re.compile(r"(?m)^(Content-Length: )\d+$"), r"\1…"),
]


class Example(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def label(self) -> str:
        """The ID of its test."""
        return f"{self.page.name}:{self.line}"


def examples(page: Path, *languages: str) -> list[Example]:
    """Return the fenced blocks of a page in any of these languages."""
    text = page.read_text()
    found = [
        Example(page, text.count("\n", 0, match.start()) + 1, match[2], textwrap.dedent(match[3]))
        for match in _FENCE.finditer(text)
    ]
    return [example for example in found if example.language in languages]


def same(text: str) -> str:
    """Return the text without the values that differ in every run."""
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text.replace("\r\n", "\n"))
    return text.strip()
