"""Save one mutable object, and restore it in place: containers, arrays, random number generators, names.

Each function takes an object and returns what restores it. That leaves alone what has not changed, since another
thread may be at work.
"""

from __future__ import annotations

import copy
import functools
import itertools
import operator
import random
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import suppress
from typing import Any, Final

import numpy as np

MISSING: Final = object()
"""Stands for a name that is not there."""

Undo = Callable[[], object]


def dict_type(value: dict[Any, Any]) -> type[dict[Any, Any]]:
    """Return the class whose methods read and write a dict past those of the user's own class."""
    return OrderedDict if isinstance(value, OrderedDict) else dict


def save_dict(value: dict[Any, Any]) -> Undo:
    """Save the entries of a dict and their order."""
    kind = dict_type(value)
    saved = list(kind.items(value))

    def restore() -> None:
        present = itertools.chain.from_iterable(kind.items(value))
        if not _same(present, [*itertools.chain.from_iterable(saved)], 2 * len(value)):
            kind.clear(value)
            for key, entry in saved:
                kind.__setitem__(value, key, entry)

    return restore


def save_names(
    namespace: MutableMapping[str, Any], changes: Callable[[str], bool], names: Iterable[str] | None = None
) -> Undo:
    """Save some names of a namespace; all, and that there are no others, where None.

    None of them is missing at any moment while they are restored.

    Args:
        namespace: whose names.
        changes: whether a name is restored, asked afterwards.
        names: which ones.
    """
    saved = dict(namespace) if names is None else {name: namespace.get(name, MISSING) for name in names}

    def restore() -> None:
        added = [] if names is not None else namespace.keys() - saved.keys()
        for name, entry in [*saved.items(), *((name, MISSING) for name in added)]:
            if namespace.get(name, MISSING) is entry or not changes(name):
                continue
            if entry is MISSING:
                namespace.pop(name, None)
            else:
                namespace[name] = entry

    return restore


def save_class(kind: type, changes: Callable[[str], bool]) -> Undo:
    """Save the attributes of a class, special ones left out, and restore those that may have been changed."""
    saved = {name: entry for name, entry in vars(kind).items() if not is_special(name)}

    def restore() -> None:
        present = {name: entry for name, entry in vars(kind).items() if not is_special(name)}
        for name, entry in saved.items():
            if present.pop(name, MISSING) is not entry and changes(name):
                type.__setattr__(kind, name, entry)  # past what a metaclass makes of it
        for name in filter(changes, present):
            type.__delattr__(kind, name)

    return restore


def save_slot(value: Any, slot: types.MemberDescriptorType, changes: Callable[[str], bool]) -> Undo:
    """Save an attribute that a class has a slot for, and restore it where it may have been changed."""
    saved = read_slot(value, slot)

    def restore() -> None:
        present = read_slot(value, slot)
        if not changes(slot.__name__):
            return
        with suppress(AttributeError, TypeError):  # one that cannot be set has not changed
            if saved is MISSING and present is not MISSING:
                slot.__delete__(value)
            elif present is not saved:
                slot.__set__(value, saved)

    return restore


def read_slot(value: Any, slot: types.MemberDescriptorType) -> Any:
    """Return what is in a slot, or `MISSING`."""
    try:
        return slot.__get__(value)
    except AttributeError:
        return MISSING


def save_cell(cell: types.CellType) -> Undo:
    """Save a variable of a closure, which must not be empty."""
    saved = cell.cell_contents

    def restore() -> None:
        if read_cell(cell) is not saved:
            cell.cell_contents = saved

    return restore


def read_cell(cell: types.CellType) -> Any:
    """Return what is in a variable of a closure, or `MISSING`."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def save_list(value: list[Any]) -> Undo:
    """Save the entries of a list."""
    saved = list.__getitem__(value, slice(None))

    def restore() -> None:
        if not _same(list.__iter__(value), saved, len(value)):
            list.__setitem__(value, slice(None), saved)

    return restore


def save_set(value: set[Any]) -> Undo:
    """Save the entries of a set."""
    saved = set(value)

    def restore() -> None:
        if len(value) != len(saved) or not set.issuperset(value, saved):
            set.clear(value)
            set.update(value, saved)

    return restore


def save_deque(value: deque[Any]) -> Undo:
    """Save the entries of a deque."""
    saved = list(deque.__iter__(value))

    def restore() -> None:
        if not _same(deque.__iter__(value), saved, len(value)):
            deque.clear(value)
            deque.extend(value, saved)

    return restore


def save_array(value: np.ndarray[Any, Any]) -> Undo:
    """Save the values of an array of NumPy."""
    saved = value.copy()

    def restore() -> None:
        if value.shape != saved.shape:
            value.resize(saved.shape, refcheck=False)
        if value.tobytes() != saved.tobytes():
            np.copyto(value, saved)

    return restore


def save_bytes(value: Any) -> Undo:
    """Save a bytearray or an array of Python's."""
    return functools.partial(operator.setitem, value, slice(None), value[:])


def save_python_random(value: random.Random) -> Undo:
    """Save the state of a generator of Python's."""
    return functools.partial(value.setstate, value.getstate())


def save_random_state(value: np.random.RandomState) -> Undo:
    """Save the state of a generator of NumPy's older kind."""
    return functools.partial(value.set_state, value.get_state(legacy=False))


def save_numpy_random(value: Any) -> Undo:
    """Save the state of a generator of NumPy's, or of the bit generator below it."""
    generator = getattr(value, "bit_generator", value)
    return functools.partial(setattr, generator, "state", copy.deepcopy(generator.state))


def save_memory_file(value: Any) -> Undo:
    """Save what is in a `StringIO` or `BytesIO`, and where it is read."""
    return functools.partial(value.__setstate__, value.__getstate__())


def is_special(name: str) -> bool:
    """Return whether a name has the form `__name__`."""
    return name.startswith("__") and name.endswith("__")


def _same(present: Iterator[Any], saved: list[Any], length: int) -> bool:
    """Return whether both hold the same objects in the same order."""
    return length == len(saved) and all(map(operator.is_, present, saved))
