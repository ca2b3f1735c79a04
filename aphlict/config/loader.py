"""Loads a configuration file: checked Settings, or a ConfigError that names key, value and expectation."""

import difflib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import msgspec
from msgspec import inspect, structs

from aphlict.config.descriptions import describe, invalid, means_null, missing, show, show_value, unwrap
from aphlict.config.files import Read, read_file, read_secrets
from aphlict.config.rules import PEER_FILES, SERVER_FILES, check_files, check_rules
from aphlict.config.settings import Limits, Settings
from aphlict.errors import ConfigError

MIB = 1024 * 1024
# Shares of a process's memory; the rest is for connections and the program.
HISTORY_SHARE, SEND_BUFFER_SHARE, SUBSCRIPTIONS_SHARE = 1 / 4, 1 / 2, 1 / 8
CUSTOM, DEFAULT = "conf/aphlict/aphlict.custom.json", "conf/aphlict/aphlict.default.json"
JSON_TYPES = {
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    NoneType: "null",
}
TABLE = inspect.type_info(Settings)
LIMIT_KEYS = [each.encode_name for each in structs.fields(Limits)]


class JSONObject(dict[str, Any]):
    """A JSON object that remembers keys given twice, with both values."""

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


def find(explicit: str | None, root: Path) -> Path:
    """Return the configuration file to use: the explicit one, else the custom one, else the default."""
    if explicit is not None:
        return Path(explicit).absolute()
    for name in (CUSTOM, DEFAULT):
        if (root / name).exists():
            return root / name
    raise ConfigError(f"{root / DEFAULT} does not exist, expected it or a file named with --config")


def load(path: Path, *, files: bool = True, read: Read = read_file) -> Settings:
    """Return the checked settings of a configuration file. Raises ConfigError that names the file.

    Every path in the result is absolute, and `workers` is a number. The files that the configuration names are read
    with `read`; with `files=False` they are not read, so that `stop` and `status` work for users who may not read the
    private key.
    """
    try:
        settings = _absolute(_convert(_read_json(path)), path.absolute().parent)
        check_rules(settings)
        if files:
            check_files(settings, read)
            settings = read_secrets(settings, read)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error.__cause__
    return _apply_memory_hint(structs.replace(settings, workers=settings.processes))


def _convert(value: Any) -> Settings:
    if not isinstance(value, JSONObject):
        raise ConfigError(f"the file contains {JSON_TYPES[type(value)]}, expected an object")
    tidy = _normalize(value, TABLE, "")
    try:
        return from_keys(tidy)
    except msgspec.ValidationError as error:
        raise _explain(error, value) from error


def from_keys(keys: Mapping[str, Any]) -> Settings:
    """Return the settings of these configuration keys. Rules between keys are not checked.

    Raises msgspec.ValidationError for a value that the table does not allow.
    """
    limits = {name: keys[name] for name in LIMIT_KEYS if name in keys}
    others = {name: value for name, value in keys.items() if name not in limits}
    return msgspec.convert({**others, "limits": limits}, Settings)


def _normalize(value: Any, kind: inspect.Type, key: str) -> Any:
    """Check values against the table where msgspec is too lenient, and drop those that mean "not given"."""
    bare = unwrap(kind)
    if isinstance(bare, inspect.StructType) and isinstance(value, JSONObject):
        return _normalize_object(value, bare, key)
    if isinstance(bare, inspect.VarTupleType) and isinstance(value, list):
        return [_normalize(item, bare.item_type, f"{key}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise invalid(key, value, describe(kind))
    if isinstance(value, str) and not _is_text(value):
        raise invalid(key, value, "valid Unicode text without NUL")
    return value


def _normalize_object(value: JSONObject, kind: inspect.StructType, key: str) -> dict[str, Any]:
    prefix = f"{key}." if key else ""
    fields = _fields(kind)
    if unknown := [name for name in value if name not in fields]:
        raise _unknown_key(prefix, unknown[0], list(fields))
    for name, (first, second) in value.twice.items():
        shown = f"{show_value(name, first)} and {show_value(name, second)}"
        raise ConfigError(f"{prefix}{name} is given twice ({shown}), expected once")
    for name, field in fields.items():
        if field.required and name not in value:
            raise missing(prefix + name, describe(field.type))
    return {
        name: _normalize(item, fields[name].type, prefix + name)
        for name, item in value.items()
        if fields[name].required or not means_null(item, fields[name].type)
    }


def _is_text(value: str) -> bool:
    """Return whether the operating system accepts it as a name: JSON can contain a lone surrogate (\\ud800)."""
    return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _unknown_key(prefix: str, name: str, known: list[str]) -> ConfigError:
    """Never show the value: the key may be that of a secret with a typo."""
    lowered = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(name.casefold().replace("_", "."), lowered, n=1)
    expected = prefix + lowered[near[0]] if near else f"one of {', '.join(known)}"
    return ConfigError(f"{prefix}{show(name)[1:-1]} is an unknown key, expected {expected}")


def _explain(error: msgspec.ValidationError, value: Any) -> ConfigError:
    """Translate msgspec's `… - at `$.servers[0].port`` into the value found there and what the table expects."""
    found = re.search(r" - at `\$\.?(.*)`$", str(error))
    key = re.sub(r"^limits\.(?=limits\.|ping\.)", "", found[1]) if found else ""
    kind: inspect.Type = TABLE
    for step in re.findall(r"\[\d+\]|[^\[\]]+", key):
        bare = unwrap(kind)
        if isinstance(bare, inspect.VarTupleType):
            value, kind = value[int(step[1:-1])], bare.item_type
        elif isinstance(bare, inspect.StructType):
            name = step.removeprefix(".")
            value, kind = value[name], _fields(bare)[name].type
    return invalid(key, value, describe(kind))


def _fields(kind: inspect.StructType) -> dict[str, inspect.Field]:
    """Return the fields of an object in the file by key. Those of a nested structure are at the same level."""
    found: dict[str, inspect.Field] = {}
    for each in kind.fields:
        if isinstance(each.type, inspect.StructType):
            found |= _fields(each.type)
        else:
            found[each.encode_name] = each
    return found


def _apply_memory_hint(settings: Settings) -> Settings:
    """Lower the limits of memory that grows with use, if `memory.hint` is less than they allow."""
    if settings.memory_hint is None:
        return settings
    share = settings.memory_hint * MIB / settings.processes
    limits = structs.replace(
        settings.limits,
        history=min(settings.limits.history, round(share * HISTORY_SHARE)),
        send_buffer_total=min(settings.limits.send_buffer_total, round(share * SEND_BUFFER_SHARE)),
        subscriptions_total=min(settings.limits.subscriptions_total, round(share * SUBSCRIPTIONS_SHARE)),
    )
    return structs.replace(settings, limits=limits)


def _absolute(settings: Settings, folder: Path) -> Settings:
    """Resolve relative paths against the folder of the configuration file."""
    base = folder.resolve()

    def at(name: str | None) -> str | None:
        return os.path.normpath(base / name) if name else name

    servers = tuple(
        structs.replace(
            each,
            auth_keys=tuple(os.path.normpath(base / name) for name in each.auth_keys),
            **{name: at(getattr(each, name)) for name in SERVER_FILES},
        )
        for each in settings.servers
    )
    logs = tuple(structs.replace(each, path=at(each.path)) for each in settings.logs)
    cluster = tuple(
        structs.replace(each, **{name: at(getattr(each, name)) for name in PEER_FILES})
        for each in settings.cluster
    )
    return structs.replace(
        settings, servers=servers, logs=logs, cluster=cluster, pidfile=at(settings.pidfile)
    )


def _read_json(path: Path) -> Any:
    """Return the value of a JSON file, with `JSONObject`s. Raises ConfigError without the file's name."""
    return parse_json(_read_text(path))


def parse_json(text: str) -> Any:
    """Parse JSON. NaN and Infinity are accepted here and rejected later, where the error can name the key."""
    try:
        return json.loads(text, object_pairs_hook=JSONObject)
    except json.JSONDecodeError as error:
        raise ConfigError(_json_error(error)) from error
    except RecursionError:
        raise ConfigError("the file is nested too deeply, expected an object") from None
    except ValueError as error:  # an integer with more digits than Python parses
        raise ConfigError(
            f"the file has a number that is too long, expected a shorter one ({error})"
        ) from error


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        raise ConfigError(f"byte {error.start} is 0x{found:02x}, expected text in UTF-8") from error
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot be read ({reason}), expected a configuration file") from error


def _json_error(error: json.JSONDecodeError) -> str:
    """Name the position only: the text there may be a secret."""
    end = "" if error.doc[error.pos :].strip() else ", found the end of the file"
    expected = error.msg[:1].lower() + error.msg[1:]
    return f"not JSON at line {error.lineno}, column {error.colno}: {expected}{end}"
