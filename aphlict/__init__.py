"""Aphlict: a notification server that pushes published messages to connected clients."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aphlict.errors import InvalidMessage, PublishFailed
    from aphlict.publisher import Receipt, publish, publish_async

__all__ = ["InvalidMessage", "PublishFailed", "Receipt", "__version__", "publish", "publish_async"]
__version__ = "1.0.0"


def __getattr__(name: str) -> Any:
    """Import the publisher on first use, because commands and servers do not need it."""
    if name in __all__:
        return getattr(import_module("aphlict.publisher"), name)
    raise AttributeError(f"module 'aphlict' has no attribute '{name}'")
