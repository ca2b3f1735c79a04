"""The objects that an object keeps alive, and the garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TypeVar

T = TypeVar("T")

CODE = (type, ModuleType, FunctionType, BuiltinFunctionType)


def kept(root: object, kind: type[T]) -> list[T]:
    """List the objects of this type that `root` refers to, directly or not."""
    found: dict[int, object] = {id(root): root}
    pending = [root]
    while pending:
        for each in gc.get_referents(pending.pop()):
            if id(each) not in found and not isinstance(each, CODE):
                found[id(each)] = each
                pending.append(each)
    return [each for each in found.values() if isinstance(each, kind)]


@contextmanager
def without_collector() -> Iterator[None]:
    """Keep the garbage collector from running, whose time would be counted as that of the code that is measured."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
