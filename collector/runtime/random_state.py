"""The random states that a whole process shares: Python's and NumPy's. Those of a framework are its adapter's."""

from __future__ import annotations

import functools
import random
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

_PYTHONS: Final[Any] = random.random.__self__  # type: ignore[attr-defined]  # it is a method
_NUMPYS: Final[Any] = np.random.rand.__self__  # type: ignore[attr-defined]
SHARED_GENERATORS: Final = (_PYTHONS, _NUMPYS)
"""The generators behind the functions of `random` and `numpy.random`."""


def shared_generators_in(module: types.ModuleType) -> tuple[tuple[str, Any], ...]:
    """Return what in the modules `random`, `numpy` and `numpy.random` leads to a shared generator, by its name."""
    return _shared_in(module) if module.__name__ in ("random", "numpy", "numpy.random", "numpy.random.mtrand") else ()


@functools.cache
def _shared_in(module: types.ModuleType) -> tuple[tuple[str, Any], ...]:
    if module is np:
        return (("random", np.random),)
    functions = ("seed", "sample", "ranf", "get_bit_generator", "set_bit_generator")  # not bound to it in NumPy
    found = {name: entry.__self__ for name, entry in vars(module).items() if hasattr(entry, "__self__")}
    found = {**vars(module), **found, **({} if module is random else dict.fromkeys(functions, _NUMPYS))}
    return tuple((name, owner) for name, owner in found.items() if owner is _PYTHONS or owner is _NUMPYS)


class RandomOfLooks:
    """Stands for the module `random` in a library's code: a thread that looks draws from a copy of the shared state.

    Args:
        namespace: of the module of the library.
        name: that `random` has there.
    """

    def __init__(self, namespace: dict[str, Any], name: str) -> None:
        self._namespace, self._name = namespace, name
        self._copies: dict[int, random.Random | None] = {}

    def __getattr__(self, name: str) -> Any:
        thread = threading.get_ident()
        if thread not in self._copies:
            return getattr(random, name)
        copy = self._copies[thread]
        if copy is None:
            copy = self._copies[thread] = random.Random()  # noqa: S311 - numbers of a look
            copy.setstate(random.getstate())
        return getattr(copy, name)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """While open, this thread looks."""
        thread = threading.get_ident()
        before = self._copies.get(thread, self)
        self._copies[thread] = None
        try:
            self._namespace[self._name] = self
            yield
        finally:
            if isinstance(before, RandomOfLooks):
                self._copies.pop(thread, None)
            else:
                self._copies[thread] = before
            if not self._copies:
                self._namespace[self._name] = random
