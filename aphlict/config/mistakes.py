"""The sentences about a mistake in a configuration: key, value, and what was expected."""

from aphlict.config.expectations import show
from aphlict.errors import ConfigError


def wrong(key: str, value: object, expected: str, because: str = "") -> ConfigError:
    """The value of a key cannot be."""
    reason = f" ({because})" if because else ""
    return ConfigError(f"{key} is {show(value)}, expected {expected}{reason}")


def missing(key: str, expected: str) -> ConfigError:
    """A key that is required is not there."""
    return ConfigError(f"{key} is missing, expected {expected}")
