"""Aphlict: a notification server that pushes published messages to the browsers that listen."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aphlict.publisher import Receipt, publish, publish_async

__all__ = ["Receipt", "__version__", "publish", "publish_async"]
__version__ = "1.0.0"


def __getattr__(name: str) -> Any:
    """Load the publisher when somebody asks for it: commands and servers do without."""
    if name in __all__:
        return getattr(import_module("aphlict.publisher"), name)
    raise AttributeError(f"module 'aphlict' has no attribute '{name}'")
