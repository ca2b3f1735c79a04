"""Configurations for tests: a valid one, changed in one place."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import structs

from aphlict.config.settings import Limits, Settings

CLIENT: dict[str, Any] = {"type": "client", "port": 22280}
ADMIN: dict[str, Any] = {"type": "admin", "port": 22281}
FIELDS = {
    each.name: each for table in (Settings, Limits) for each in structs.fields(table) if each.name != "limits"
}
KEYS = {name: field.encode_name for name, field in FIELDS.items()}


def configuration(**changes: Any) -> dict[str, Any]:
    """A valid configuration; `changes` are named as by `named`."""
    return {"servers": [CLIENT, ADMIN], "pidfile": "aphlict.pid"} | named(changes)


def named(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return these values by configuration key: `drain_time` is `drain.time`, `body_time` is `limits.body.time`."""
    return {KEYS.get(name, name): value for name, value in changes.items()}


def write_configuration(folder: Path, content: object = None, **changes: Any) -> Path:
    """Write a configuration (or any other content: text as it is, values as JSON) and name the file."""
    path = folder / "aphlict.json"
    value = configuration(**changes) if content is None else content
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path
