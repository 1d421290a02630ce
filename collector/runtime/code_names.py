"""What code can reach and change: the names that its functions use and store, and which classes are the user's own."""

from __future__ import annotations

import dis
import enum
import functools
import sys
import types
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, Final, NamedTuple

ANY_NAME: Final = frozenset(
    {
        *("getattr", "setattr", "delattr", "vars", "__dict__", "eval", "exec", "globals", "locals"),
        *("__setattr__", "__delattr__", "__getattribute__"),
    }
)
"""A function that uses one of these may reach every name, and store it."""

_FRAMEWORKS: Final = frozenset(
    {
        *("gatewatch", "keras", "tensorflow", "torch", "jax", "jaxlib", "numpy"),
        *("lightning", "pytorch_lightning", "lightning_fabric", "lightning_utilities", "torchmetrics"),
        *("wrapt", "optree", "pytest", "_pytest"),
    }
)
_LIBRARIES: Final = sys.stdlib_module_names | _FRAMEWORKS | {"pandas", "scipy"}

_OF_GLOBALS: Final = ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL")
_STORES: Final = ("STORE_ATTR", "DELETE_ATTR", "STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF")
_ITEM: Final = "[]="
_OF_ITEMS: Final = ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE")

_MUTATE_ANY: Final = frozenset({"clear", "pop", "__init__", "__ior__", "__iadd__", "__imul__"})
_MUTATE_SEQUENCE: Final = _MUTATE_ANY | {
    *(_ITEM, "+=", "*=", "__setitem__", "__delitem__", "setitem", "delitem", "iadd", "iconcat", "imul"),
    *("append", "extend", "insert", "remove", "reverse", "sort", "appendleft", "extendleft", "popleft", "rotate"),
    *("shuffle", "heapify", "heappush", "heappop", "heapreplace", "heappushpop"),
    *("insort", "insort_left", "insort_right"),
}
MUTATORS: Final[Mapping[type, frozenset[str]]] = {
    list: _MUTATE_SEQUENCE,
    deque: _MUTATE_SEQUENCE,
    dict: _MUTATE_ANY
    | {_ITEM, "|=", "__setitem__", "__delitem__", "setitem", "delitem", "ior", "popitem", "setdefault", "move_to_end"}
    | {"update", "subtract"},
    set: _MUTATE_ANY
    | {"|=", "&=", "-=", "^=", "add", "remove", "discard", "ior", "iand", "isub", "ixor"}
    | {"__iand__", "__isub__", "__ixor__"}
    | {"update", "difference_update", "intersection_update", "symmetric_difference_update"},
}
"""Type of a container → what code must use, of `names_in`, to change one."""


class Names(NamedTuple):
    """What a function and those within it use.

    Attributes:
        used: the globals.
        names: all names, with those of attributes, and what stands for changes of an item and in place.
        stored: attributes, globals and variables of closures that are set or deleted.
    """

    used: frozenset[str]
    names: frozenset[str]
    stored: frozenset[str]


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> Names:
    """Return what a function and those within it use."""
    used, names, stored = set[str](), set(code.co_names), set[str]()
    for step in dis.get_instructions(code):
        if step.opname in _OF_GLOBALS:
            used.add(step.argval)
        if step.opname in _STORES:
            stored.add(step.argval)
        elif step.opname in _OF_ITEMS:
            names.add(_ITEM)
        elif step.opname == "BINARY_OP" and step.argrepr.endswith("="):
            names.add(step.argrepr)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            within = names_in(inner)
            used |= within.used
            names |= within.names
            stored |= within.stored
    return Names(frozenset(used), frozenset(names), frozenset(stored))


def is_of_library(module: str | None) -> bool:
    """Return whether a module is Python's or a framework's, whose own state is not a user's."""
    return package_of(module) in _LIBRARIES


def may_draw(module: str | None) -> bool:
    """Return whether code of a library that is not read may draw from the random numbers that a process shares."""
    package = package_of(module)
    return package not in _FRAMEWORKS and (package == "statistics" or package not in sys.stdlib_module_names)


@functools.cache
def is_installed(package: str) -> bool:
    """Return whether a package was installed from a distribution: not a script, nor a folder that is worked on."""
    module = sys.modules.get(package)
    places = list(getattr(module, "__path__", ())) or [getattr(module, "__file__", None) or ""]
    return any({"site-packages", "dist-packages"} & set(PurePath(place).parts) for place in places)


def package_of(module: Any) -> str:
    """Return the name of the outermost package of a module; none where a class has no name of one."""
    return module.partition(".")[0] if isinstance(module, str) else ""


@functools.cache
def is_users(kind: Any) -> bool:
    """Return whether a class is the user's, or of a library that is not known here."""
    return not is_of_library(kind.__module__) and not issubclass(kind, enum.Enum)


@functools.cache
def names_of_libraries(kind: Any) -> frozenset[str]:
    """Return the names that the libraries' part of a class uses, and so may store in its instances."""
    names = set[str]()
    for base in kind.__mro__[:-1]:
        if not is_users(base):
            for entry in vars(base).values():
                for function in map(_unwrapped, functions_of(entry)):
                    if isinstance(function, types.FunctionType):
                        names |= _all_names(function.__code__)
    return frozenset(names)


def _unwrapped(function: Any) -> Any:
    inner = function.__dict__.get("__wrapped__") if isinstance(function, types.FunctionType) else None
    return function if inner is None else _unwrapped(inner)


def _all_names(code: types.CodeType) -> set[str]:
    within = (_all_names(inner) for inner in code.co_consts if isinstance(inner, types.CodeType))
    return set(code.co_names).union(*within)


def functions_of(entry: Any) -> Iterable[Any]:
    """Return the functions behind an entry of a class, or the entry itself."""
    if isinstance(entry, staticmethod | classmethod):
        return (entry.__func__,)
    if isinstance(entry, property):
        return filter(None, (entry.fget, entry.fset, entry.fdel))
    return (entry.func,) if isinstance(entry, functools.cached_property) else (entry,)
