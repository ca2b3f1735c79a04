"""Escaping for logs and terminals: untrusted text must not forge lines or control the terminal."""

import json
from typing import Any


def escape(text: str) -> str:
    """Escape characters that cannot be printed: `\\x1b`, `\\u202e`, `\\U000e0001`.

    These are control characters (C0, DEL, C1), line separators, bidirectional controls and other invisible
    characters, and lone surrogates, as defined by `str.isprintable`. The result is one line.
    """
    return text if text.isprintable() else "".join(map(_escape_one, text))


def to_json(value: Any, *, ascii_only: bool = False) -> str:
    """Encode as JSON on one line, with unprintable characters escaped as in JSON: `\\u202e`."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    return text if text.isprintable() else "".join(map(_escape_one_in_json, text))


def _escape_one(letter: str) -> str:
    if letter.isprintable():
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escape_one_in_json(letter: str) -> str:
    if letter.isprintable():
        return letter
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
