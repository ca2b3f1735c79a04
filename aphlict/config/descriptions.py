"""Descriptions of settings and their values for error messages and the manual, derived from the table of settings."""

import json
from typing import Any

from msgspec import inspect

from aphlict.errors import ConfigError
from aphlict.printable import escape

MAX_SHOWN = 120  # characters of an offending value: enough for a path, too few for a pasted certificate

PEM = "-----BEGIN "


def unwrap(kind: inspect.Type) -> inspect.Type:
    """Return the type without `| None` and annotations."""
    if isinstance(kind, inspect.Metadata):
        return unwrap(kind.type)
    if isinstance(kind, inspect.UnionType):
        return next(unwrap(each) for each in kind.types if not isinstance(each, inspect.NoneType))
    return kind


def means_null(value: object, kind: inspect.Type) -> bool:
    """Return whether this value of an optional key means "not given": null, or its `not_given` in the table."""
    if isinstance(kind, inspect.UnionType):
        return any(means_null(value, each) for each in kind.types)
    if isinstance(kind, inspect.Metadata) and "not_given" in (kind.extra or {}):
        other = (kind.extra or {})["not_given"]
        return type(value) is type(other) and value == other  # False is not 0
    return value is None


def describe(kind: inspect.Type) -> str:
    """Return a description of the values of this type, to follow the word "expected"."""
    if isinstance(kind, inspect.UnionType):
        texts = [describe(each) for each in kind.types]
        return (", or " if any("," in text for text in texts) else " or ").join(texts)
    if isinstance(kind, inspect.Metadata):
        return _describe_annotated(kind.type, kind.extra or {})
    return _describe_annotated(kind, {})


def _describe_annotated(kind: inspect.Type, extra: dict[str, Any]) -> str:
    unit = f" of {extra['unit']}" if "unit" in extra else ""
    match kind:
        case inspect.IntType():
            return f"a whole number{unit}{_range(kind)}"
        case inspect.FloatType():
            return f"a number{unit}{_range(kind)}"
        case inspect.StrType():
            text: str = extra.get("kind", "text")
            return text + " that is not empty" if text == "text" and kind.min_length else text
        case inspect.LiteralType():
            return " or ".join(json.dumps(value) for value in kind.values)
        case inspect.StructType():
            return "an object"
        case inspect.VarTupleType():
            return f"a list of {_plural(kind.item_type)}"
        case inspect.BoolType():
            return "true or false"
        case inspect.NoneType():
            return "null"
    raise TypeError(f"no description for the type {kind}")


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.gt is not None:
        return f" above {kind.gt}" + (f", at most {kind.le}" if kind.le is not None else "")
    if kind.ge is not None and kind.le is not None:
        return f" from {kind.ge} to {kind.le}"
    return f", at least {kind.ge}" if kind.ge is not None else ""


def _plural(kind: inspect.Type) -> str:
    article, _, noun = describe(kind).partition(" ")
    if article not in ("a", "an"):
        return "texts"
    return noun + ("es" if noun.endswith("s") else "s")


def show(value: object) -> str:
    """Return a value as in the file, shortened, on one line and printable on any terminal."""
    match value:
        case dict():
            return "an object" if value else "an empty object"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case str() if PEM in value:  # possibly a private key where a file name belongs
            value = value.partition(PEM)[0] + PEM + "…"
    return shorten(json.dumps(value, ensure_ascii=False))


def shorten(text: str) -> str:
    """Return a piece of a file, shortened, on one line and printable on any terminal."""
    text = escape(text)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 20]}…{text[-20:]}"


HIDDEN = "…"  # error messages end up in logs, terminals and tickets


def invalid(key: str, value: object, expected: str, because: str = "") -> ConfigError:
    """Return the error for a value that its key does not allow."""
    reason = f" ({because})" if because else ""
    return ConfigError(f"{key} is {show_value(key, value)}, expected {expected}{reason}")


def show_value(key: str, value: object) -> str:
    """Return the value of a key for an error message; a secret is replaced by HIDDEN."""
    is_secret = (
        isinstance(value, str | int | float) and "secret" in key.casefold() and not key.endswith(".file")
    )
    return show(HIDDEN if is_secret else value)


def missing(key: str, expected: str) -> ConfigError:
    """Return the error for a required key that is missing."""
    return ConfigError(f"{key} is missing, expected {expected}")
