"""From the text of a configuration file to plain JSON values, stricter than `json` is by itself."""

import json
from pathlib import Path
from typing import Any

from aphlict.errors import ConfigError


class Object(dict[str, Any]):
    """A JSON object that remembers the keys that it was given twice, with both values."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice: dict[str, tuple[Any, Any]] = {}
        if len(self) < len(pairs):
            self._find_twice(pairs)

    def _find_twice(self, pairs: list[tuple[str, Any]]) -> None:
        first: dict[str, Any] = {}
        for key, value in pairs:
            if key in first:
                self.twice.setdefault(key, (first[key], value))
            first.setdefault(key, value)


def load(path: Path) -> Any:
    """Read a JSON file; its objects are `Object`s. Raises ConfigError without the file's name in it."""
    return parse(_text(path))


def parse(text: str) -> Any:
    """Parse JSON. NaN and Infinity pass here, as values that no key accepts: so the sentence names the key."""
    try:
        return json.loads(text, object_pairs_hook=Object)
    except json.JSONDecodeError as error:
        raise ConfigError(_not_json(error)) from error
    except RecursionError:
        raise ConfigError("the file is nested deeper than any configuration, expected an object") from None
    except ValueError as error:  # a whole number of more digits than Python reads
        raise ConfigError(
            f"the file holds a number that is too long, expected a shorter one ({error})"
        ) from error


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        raise ConfigError(f"byte {error.start} is 0x{found:02x}, expected text in UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot be read ({reason}), expected a configuration file") from error


def _not_json(error: json.JSONDecodeError) -> str:
    """The place, and nothing of what stands there: it may be a secret."""
    end = "" if error.doc[error.pos :].strip() else ", found the end of the file"
    expected = error.msg[:1].lower() + error.msg[1:]
    return f"not JSON at line {error.lineno}, column {error.colno}: {expected}{end}"
