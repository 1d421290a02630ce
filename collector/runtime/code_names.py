"""What code can reach: which names its functions use, and which classes are the user's own."""

from __future__ import annotations

import dis
import enum
import functools
import sys
import types
from collections.abc import Iterable
from typing import Any, Final

ANY_NAME: Final = frozenset({"getattr", "setattr", "delattr", "vars", "__dict__", "eval", "exec", "globals", "locals"})
"""A function that uses one of these may reach every name."""

_LIBRARIES: Final = sys.stdlib_module_names | {
    *("gatewatch", "keras", "tensorflow", "torch", "jax", "jaxlib", "numpy", "pandas", "scipy"),
    *("lightning", "pytorch_lightning", "lightning_fabric", "lightning_utilities", "torchmetrics"),
    *("wrapt", "optree", "pytest", "_pytest"),
}
_OF_GLOBALS: Final = ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL")


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """Return the globals that a function and those within it use, and all their names, with those of attributes."""
    used = {step.argval for step in dis.get_instructions(code) if step.opname in _OF_GLOBALS}
    names = set(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            inner_used, inner_names = names_in(inner)
            used |= inner_used
            names |= inner_names
    return frozenset(used), frozenset(names)


def is_of_library(module: str | None) -> bool:
    """Return whether a module is Python's or a framework's, whose own state is not a user's."""
    return (module or "").partition(".")[0] in _LIBRARIES


@functools.cache
def is_users(kind: Any) -> bool:
    """Return whether a class is the user's, or of a library that is not known here."""
    return not is_of_library(kind.__module__) and not issubclass(kind, enum.Enum)


def functions_of(entry: Any) -> Iterable[Any]:
    """Return the functions behind an entry of a class, or the entry itself."""
    if isinstance(entry, staticmethod | classmethod):
        return (entry.__func__,)
    if isinstance(entry, property):
        return filter(None, (entry.fget, entry.fset, entry.fdel))
    return (entry.func,) if isinstance(entry, functools.cached_property) else (entry,)
