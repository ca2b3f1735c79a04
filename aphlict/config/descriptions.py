"""What a key may hold, in words: read from the table of settings, so that sentences cannot differ from it."""

import json
from typing import Any

from msgspec import inspect

from aphlict.errors import ConfigError
from aphlict.printable import escape

MAX_SHOWN = (
    120  # letters of an offending value: a path fits, a certificate that was pasted in its place does not
)

PEM = "-----BEGIN "


def unwrap(kind: inspect.Type) -> inspect.Type:
    """The type behind `| None` and annotations."""
    if isinstance(kind, inspect.Metadata):
        return unwrap(kind.type)
    if isinstance(kind, inspect.UnionType):
        return next(unwrap(each) for each in kind.types if not isinstance(each, inspect.NoneType))
    return kind


def means_null(value: object, kind: inspect.Type) -> bool:
    """Whether this value of an optional key means "not given": null, and what the table has as `not_given`."""
    if isinstance(kind, inspect.UnionType):
        return any(means_null(value, each) for each in kind.types)
    if isinstance(kind, inspect.Metadata) and "not_given" in (kind.extra or {}):
        other = (kind.extra or {})["not_given"]
        return type(value) is type(other) and value == other  # False is not 0
    return value is None


def describe(kind: inspect.Type) -> str:
    """What a value of this type is, as it stands after the word "expected"."""
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
    raise TypeError(f"the table of settings has a type without words: {kind}")


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
    """A value as the file has it, short, on one line, and printable on any console."""
    match value:
        case dict():
            return "an object" if value else "an empty object"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case str() if PEM in value:  # a private key, perhaps, in the place of its file
            value = value.partition(PEM)[0] + PEM + "…"
    return shorten(json.dumps(value, ensure_ascii=False))


def shorten(text: str) -> str:
    """A piece of a file, on one line, and printable on any console."""
    text = escape(text)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 20]}…{text[-20:]}"


HIDDEN = "…"  # a sentence ends up in logs, terminals and tickets


def invalid(key: str, value: object, expected: str, because: str = "") -> ConfigError:
    """The value of a key cannot be."""
    reason = f" ({because})" if because else ""
    return ConfigError(f"{key} is {show_value(key, value)}, expected {expected}{reason}")


def show_value(key: str, value: object) -> str:
    """The value of a key, unless that is a secret."""
    is_secret = (
        isinstance(value, str | int | float) and "secret" in key.casefold() and not key.endswith(".file")
    )
    return show(HIDDEN if is_secret else value)


def missing(key: str, expected: str) -> ConfigError:
    """A key that is required is not there."""
    return ConfigError(f"{key} is missing, expected {expected}")
