"""The objects that an object keeps alive: tests that nothing is left of what was forgotten."""

import gc
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
