"""The configurations in conf/, with the ports, paths and times that a test has to change."""

from pathlib import Path

CONF = Path(__file__).resolve().parents[2] / "conf"


def shipped(name: str, **changes: str) -> str:
    """Return conf/NAME with these changes."""
    return changed((CONF / name).read_text(), changes)


def changed(text: str, changes: dict[str, str]) -> str:
    """Replace each text by another, simultaneously; a missing one is an error."""
    for old in changes:
        assert old in text, f"the configuration no longer has {old!r}"
    parts = [text]
    for old, new in sorted(changes.items(), key=lambda change: -len(change[0])):
        parts = _replaced(parts, old, new)
    return "".join(parts)


def _replaced(parts: list[str], old: str, new: str) -> list[str]:
    """Odd parts are replacements already and stay as they are."""
    result: list[str] = []
    for index, part in enumerate(parts):
        pieces = [part] if index % 2 else part.split(old)
        result.append(pieces[0])
        for piece in pieces[1:]:
            result += [new, piece]
    return result
