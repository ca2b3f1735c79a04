"""The sentences about a mistake in a configuration: key, value, and what was expected."""

from aphlict.config.expectations import show
from aphlict.errors import ConfigError

HIDDEN = "…"  # a sentence ends up in logs, terminals and tickets


def wrong(key: str, value: object, expected: str, because: str = "") -> ConfigError:
    """The value of a key cannot be."""
    reason = f" ({because})" if because else ""
    return ConfigError(f"{key} is {show_of(key, value)}, expected {expected}{reason}")


def show_of(key: str, value: object) -> str:
    """The value of a key, unless that is a secret."""
    is_secret = (
        isinstance(value, str | int | float) and "secret" in key.casefold() and not key.endswith(".file")
    )
    return show(HIDDEN if is_secret else value)


def missing(key: str, expected: str) -> ConfigError:
    """A key that is required is not there."""
    return ConfigError(f"{key} is missing, expected {expected}")
