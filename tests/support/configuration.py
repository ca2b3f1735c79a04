"""Configurations for tests: a valid one, changed in one place."""

import json
from pathlib import Path
from typing import Any

CLIENT: dict[str, Any] = {"type": "client", "port": 22280}
ADMIN: dict[str, Any] = {"type": "admin", "port": 22281}


def configuration(**changes: Any) -> dict[str, Any]:
    """A valid configuration; `drain_time=1` sets `drain.time`."""
    base = {"servers": [CLIENT, ADMIN], "pidfile": "aphlict.pid"}
    return base | {key.replace("_", "."): value for key, value in changes.items()}


def write_configuration(folder: Path, content: object = None, **changes: Any) -> Path:
    """Write a configuration (or any other content: text as it is, values as JSON) and name the file."""
    path = folder / "aphlict.json"
    value = configuration(**changes) if content is None else content
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path
