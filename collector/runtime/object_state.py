"""Undo, in place, what a call does to Python objects: attributes, containers, arrays, random number generators.

Which objects a call can reach, and what of them it can change, is read from its code. What lies under an attribute, a
global or a variable of a closure that none of its functions names is left alone, and so are a name that none of them
stores and a container that none of them changes: another thread or a signal handler may be at work there.
"""

from __future__ import annotations

import array
import functools
import io
import random
import sys
import threading
import types
from collections import Counter, UserDict, UserList, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from gatewatch.collector.runtime import saved
from gatewatch.collector.runtime.caches import cached_in, with_empty_cache
from gatewatch.collector.runtime.code_names import (
    ANY_NAME,
    MUTATORS,
    functions_of,
    is_installed,
    is_of_library,
    is_users,
    may_draw,
    names_in,
    names_of_libraries,
    package_of,
)
from gatewatch.collector.runtime.random_state import SHARED_GENERATORS, shared_generators_in
from gatewatch.collector.runtime.saved import Undo, is_special
from gatewatch.collector.runtime.stand_in import stand_in
from gatewatch.collector.text import safe_repr

MOST_OBJECTS: Final = 50_000
"""So many objects are followed."""
MOST_FUNCTIONS: Final = 200
"""So many functions are read of a package that is installed, and is not the model's own."""
MOST_BYTES: Final = 256 * 2**20
"""So many bytes of arrays and tensors are copied."""

_ENTRIES: Final = frozenset(
    {
        *("call", "forward", "build", "inner_loop", "get_initial_state", "get_gate_history"),
        *("compute_mask", "compute_output_spec", "compute_output_shape"),
    }
)
"""What a framework calls of a user's class while a model is called, beside special methods."""
_NOT_CALLED: Final = frozenset(
    {
        *("__init__", "__new__", "__init_subclass__", "__del__", "__repr__", "__str__"),
        *("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__copy__", "__deepcopy__"),
    }
)
_PLAIN_CLASSES: Final = (types.SimpleNamespace, UserDict, UserList, threading.local)
_not_read: Final[set[str]] = set()
"""Packages of more functions than are read. Their objects are saved whole, what their modules keep is not."""

Place = tuple[Any, str | tuple[Any]]
"""Where an object lies: the place of what holds it, or None, and what is written behind that, or a key."""
Visit = Callable[["ObjectState", Any, Place], object]
"""Saves an object, and follows what it holds."""


class _Spot(NamedTuple):
    """How something is read from where it lies, and put there; with the holder and name, key or index."""

    get: Callable[[Any, Any], Any]
    put: Callable[[Any, Any, Any], object]


_OF_NAMES: Final = _Spot(dict.get, dict.__setitem__)
_OF_DICT: Final = _Spot(
    lambda value, key: saved.dict_type(value).get(value, key),
    lambda value, key, entry: saved.dict_type(value).__setitem__(value, key, entry),
)
_OF_LIST: Final = _Spot(list.__getitem__, list.__setitem__)
_OF_SLOT: Final = _Spot(saved.read_slot, lambda value, slot, entry: slot.__set__(value, entry))
_OF_CLASS: Final = _Spot(lambda kind, name: vars(kind).get(name), type.__setattr__)
_OF_CELL: Final = _Spot(lambda cell, _: saved.read_cell(cell), setattr)
_Held = tuple[_Spot, Any, Any, Any, Place]
"""A spot, the holder, the name, key or index, what lies there, and the place as it is written."""


class Kinds(dict[type, Visit | None]):
    """Type → how an object of it is saved; None where it cannot change, or belongs to a library.

    Args:
        own: type of a framework → how an object of it, or of a subclass, is saved.
        classes: of a framework, whose instances are followed as those of a user's classes are.
        left_alone: attributes of these that another thread or a signal handler may set at any moment, to stay.
    """

    def __init__(self, own: Mapping[type, Visit], classes: tuple[type, ...], left_alone: Collection[str] = ()) -> None:
        super().__init__()
        self.classes, self.left_alone = classes, left_alone
        self._by_base = {**own, **_BUILT_IN}

    def __missing__(self, kind: Any) -> Visit | None:
        own = [visit for base, visit in self._by_base.items() if issubclass(kind, base)]
        if own:
            self[kind] = own[0]
        elif issubclass(kind, Iterator) and not is_users(kind):
            self[kind] = ObjectState.replace
        elif issubclass(kind, (*self.classes, *_PLAIN_CLASSES)) or is_users(kind):
            self[kind] = ObjectState.follow_object
        else:
            is_called = any("__call__" in vars(base) for base in kind.__mro__)
            self[kind] = _follow_of_library if is_called or may_draw(kind.__module__) else None
        return self[kind]


class ObjectState:
    """The state of what a call can reach, from before it; `restore()` puts it back, in the same objects.

    Generators, open files and what else cannot be copied are replaced until then by stand-ins, which raise
    `NotIsolatedError` in this thread, and in others do what the object itself does.

    Args:
        roots: name → object.
        kinds: how objects are saved.
        names: of the methods that are called, beside those that a framework calls itself.
        apart: objects that are neither saved nor followed.
        named: name → object of the process that code reaches by it; by `name=` where code stores the name.

    Attributes:
        left_out: what is not restored → why.
    """

    def __init__(
        self,
        roots: Mapping[str, Any],
        kinds: Kinds,
        names: Collection[str] = (),
        apart: Collection[Any] = (),
        named: Mapping[str, Any] = types.MappingProxyType({}),
    ) -> None:
        self.left_out: dict[str, str] = {}
        self._kinds = kinds
        self._undo: list[Undo] = []
        self._seen = {id(one): one for one in apart}
        self._most = MOST_OBJECTS + len(self._seen)
        self._classes: set[tuple[type, bool]] = set()
        self._names = {*_ENTRIES, *names}
        self._stored: set[str] = set()
        self._any_name = self._any_change = False
        self._restored_always: set[int] = set()
        self._read: Counter[str] = Counter()
        self._own_packages = {package_of(getattr(root, "__module__", None)) for root in roots.values()}
        self._waiting: dict[str, list[_Held]] = {}
        self._of_process = tuple(named)
        self._bytes = 0
        self._stack: list[tuple[Any, Place]] = []
        for name, root in roots.items():
            self.follow(root, (None, name))
            if isinstance(root, dict):  # of a framework
                self._restored_always |= {id(root), *map(id, root.values())}
        try:
            for name, value in named.items():
                self._named(name, _OF_NAMES, {}, name, value, (None, name))
            self._follow_all()
        except BaseException:
            self.restore()
            raise

    def restore(self) -> None:
        """Put back what has changed.

        Raises:
            Exception: the first of those that were raised; the rest is restored nevertheless.
        """
        failed: Exception | None = None
        while self._undo:
            try:
                self._undo.pop()()
            except Exception as error:  # of a user's class
                failed = failed or error
        if failed is not None:
            raise failed

    # What visits call.

    def undo(self, undo: Undo) -> None:
        """Call this when everything is restored."""
        self._undo.append(undo)

    def follow(self, value: Any, place: Place) -> None:
        """Save an object too, and what it holds."""
        self._stack.append((value, place))

    def affords(self, size: int, place: Place) -> bool:
        """Return whether so many bytes more are copied; where not, they are left out."""
        if self._bytes + size > MOST_BYTES:
            self.left_out[_written(place)] = f"its {size:,} bytes are too many"
            return False
        self._bytes += size
        return True

    def follow_object(self, value: Any, place: Place) -> None:
        """Save the attributes of an object and of the user's part of its class."""
        namespace = _namespace(value)
        kind: Any = type(value)
        of_framework = isinstance(value, self._kinds.classes)
        frameworks_own = (dict, list, set, *self._kinds.classes)
        of_libraries = names_of_libraries(kind)
        is_read = package_of(kind.__module__) not in _not_read
        if of_framework:
            self._own_packages.update(package_of(base.__module__) for base in kind.__mro__)

        def changes(name: str) -> bool:
            if of_framework and name in self._kinds.left_alone:
                return False
            is_frameworks = of_framework and name.startswith("_")
            return self._is_stored(name) or not is_read or is_frameworks or name in of_libraries

        self.undo(saved.save_names(namespace, changes))
        for name, entry in list(namespace.items()):
            if self._kinds[type(entry)] is None:
                continue
            is_called = of_framework and callable(entry)
            is_frameworks = of_framework and name.startswith("_") and isinstance(entry, frameworks_own)
            if is_frameworks or name in of_libraries or not is_read:
                self._restored_always.add(id(entry))
            at_once = is_called or is_frameworks or not is_read
            self._named(name, _OF_NAMES, namespace, name, entry, (place, f".{name}"), at_once=at_once)
        for base in filter(is_users, kind.__mro__):
            for name, slot in vars(base).items():
                if isinstance(slot, types.MemberDescriptorType):
                    self.undo(saved.save_slot(value, slot, changes))
                    held = saved.read_slot(value, slot)
                    self._named(name, _OF_SLOT, value, slot, held, (place, f".{name}"), at_once=not is_read)
        self._follow_class(kind, is_made=False)

    def follow_dict(self, value: dict[Any, Any], place: Place) -> None:
        """Save a dict."""
        if hasattr(type(value), "__missing__"):  # to read from it changes it
            self._restored_always.add(id(value))
        self._save_container(value, dict, saved.save_dict(value))
        for key, entry in list(saved.dict_type(value).items(value)):
            if self._kinds[type(entry)] is not None:
                self._entry(_OF_DICT, value, key, entry, (place, (key,)))
        self._follow_attributes(value, place)

    def follow_list(self, value: list[Any], place: Place) -> None:
        """Save a list."""
        self._save_container(value, list, saved.save_list(value))
        for index, entry in enumerate(list.__iter__(value)):
            if self._kinds[type(entry)] is not None:
                self._entry(_OF_LIST, value, index, entry, (place, (index,)))
        self._follow_attributes(value, place)

    def follow_entries(self, value: Any, place: Place) -> None:
        """Save what is in a set, deque or tuple, and these where they can change."""
        if isinstance(value, set):
            self._save_container(value, set, saved.save_set(value))
        elif isinstance(value, deque):
            self._save_container(value, deque, saved.save_deque(value))
        for entry in list(value):
            self.follow(entry, (place, "[…]"))
        self._follow_attributes(value, place)

    def follow_class(self, value: type, place: Place) -> None:
        """Save the attributes of a class that the code names, and so may make instances of."""
        if is_of_library(value.__module__):
            self.follow_library(value.__module__)
        self._follow_class(value, is_made=not issubclass(value, self._kinds.classes))

    def follow_module(self, value: types.ModuleType, place: Place) -> None:
        """Save what the code names of a module of the user's."""
        for name, generator in shared_generators_in(value):
            self._named(name, _OF_NAMES, {}, name, generator, (place, f".{name}"))
        if self._is_read(value.__name__):
            namespace = vars(value)
            self.undo(saved.save_names(namespace, self._is_stored, list(namespace)))
            for name, entry in list(namespace.items()):
                self._named(name, _OF_NAMES, namespace, name, entry, (None, f"{value.__name__}.{name}"))
        else:
            self.follow_library(value.__name__)

    def follow_function(self, value: types.FunctionType, place: Place) -> None:
        """Save what a function of the user's uses: globals, the closure, its defaults and attributes."""
        if not self._is_read(value.__module__):
            self.follow_library(value.__module__)
            return
        self._read[package_of(value.__module__)] += 1
        used, names, stored = names_in(value.__code__)
        self._stored |= stored
        self._any_name = self._any_name or bool(names & ANY_NAME)
        for name in list(self._waiting) if names & ANY_NAME else (*names, *(f"{name}=" for name in stored)):
            self._reach(name)
        namespace = value.__globals__
        self.undo(saved.save_names(namespace, self._is_stored, used))
        for name in used & namespace.keys():
            self._entry(_OF_NAMES, namespace, name, namespace[name], (None, name))
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            self._follow_cell(cell, (None, name))
        for held in (value.__defaults__, value.__kwdefaults__, vars(value)):
            self.follow(held, (None, value.__name__))

    def follow_library(self, module: str | None) -> None:
        """Save what a library's code, which is not read, may change: shared random numbers; of some, anything."""
        if package_of(module) in _not_read:
            self._any_change = True
            for name in self._of_process:
                self._reach(name)
        if may_draw(module):
            for generator in SHARED_GENERATORS:
                self.follow(generator, (None, "random"))

    def follow_bound(self, value: Any, place: Place) -> None:
        """Follow the object and the function of a method; of a function that is written in C, its name counts."""
        if not isinstance(value, types.MethodType):
            self._reach(value.__name__)
        elif package_of(value.__func__.__module__) != "numpy":
            self.follow(value.__func__, place)
        if not isinstance(value.__self__, types.ModuleType):
            self.follow(value.__self__, place)

    def follow_partial(self, value: functools.partial[Any], place: Place) -> None:
        """Follow the function of a partial one, and its arguments."""
        for held in (value.func, value.args, value.keywords):
            self.follow(held, place)

    def replace(self, value: Any, place: Place) -> None:
        """Do nothing with an iterator or file that cannot be replaced where it lies, such as in a tuple."""

    def follow_array(self, value: np.ndarray[Any, Any], place: Place) -> None:
        """Save an array of NumPy."""
        if value.dtype.hasobject:
            self.follow(value.reshape(-1).tolist(), place)
        if value.flags.writeable and self.affords(value.nbytes, place):
            self.undo(saved.save_array(value))

    # The order.

    def _follow_all(self) -> None:
        while self._stack:
            value, place = self._stack.pop()
            visit = self._kinds[type(value)]
            if visit is None or id(value) in self._seen:
                continue
            if len(self._seen) >= self._most:
                self.left_out[_written(place)] = (
                    f"more than {MOST_OBJECTS:,} objects are too many, as are those after it"
                )
                return
            self._seen[id(value)] = value
            visit(self, value, place)

    def _is_read(self, module: str | None) -> bool:
        """Return whether the code of a module is read; that of a large package is not, and from then on never."""
        package = package_of(module)
        if is_of_library(module):
            return False
        is_large = self._read[package] >= MOST_FUNCTIONS and package not in self._own_packages and is_installed(package)
        if package not in _not_read and not is_large:
            return True
        _not_read.add(package)
        self.left_out[package] = f"more than {MOST_FUNCTIONS} of its functions are too many to read"
        return False

    def _is_stored(self, name: str) -> bool:
        """Return whether the code may store a name, once all of it is read."""
        return self._any_name or self._any_change or name in self._stored

    def _save_container(self, value: Any, kind: type, restore: Undo) -> None:
        def restore_changed() -> None:
            may_change = self._any_name or self._any_change or id(value) in self._restored_always
            if may_change or self._names & MUTATORS[kind]:
                restore()

        self.undo(restore_changed)

    def _follow_attributes(self, value: Any, place: Place) -> None:
        """Follow the attributes of a container of the user's own class."""
        kind: Any = type(value)
        if is_users(kind):
            self.follow_object(value, place)

    def _follow_class(self, value: type, is_made: bool) -> None:
        for kind in filter(is_users, value.__mro__):
            if (kind, is_made) in self._classes:
                continue
            self._classes.add((kind, is_made))
            if not self._is_read(kind.__module__):
                self.follow_library(kind.__module__)
                continue
            self._follow_class(type(kind), is_made=False)
            self.undo(saved.save_class(kind, self._is_stored))
            for name, entry in list(vars(kind).items()):
                is_called = is_special(name) and (is_made or name not in _NOT_CALLED)
                if isinstance(entry, functools.cached_property):
                    self._stored.add(name)
                for part in functions_of(entry) if cached_in(entry) is None else (entry,):
                    self._named(name, _OF_CLASS, kind, name, part, (None, f"{kind.__name__}.{name}"), at_once=is_called)

    def _follow_cell(self, cell: types.CellType, place: Place) -> None:
        entry = saved.read_cell(cell)
        if entry is saved.MISSING or id(cell) in self._seen:
            return
        self._seen[id(cell)] = cell
        self.undo(saved.save_cell(cell))
        self._entry(_OF_CELL, cell, "cell_contents", entry, place)

    def _named(
        self, name: str, spot: _Spot, holder: Any, key: Any, entry: Any, place: Place, *, at_once: bool = False
    ) -> None:
        """Follow what lies under a name as soon as the code is seen to use the name."""
        if at_once or name in self._names or self._any_name:
            self._entry(spot, holder, key, entry, place)
        else:
            self._waiting.setdefault(name, []).append((spot, holder, key, entry, place))

    def _reach(self, name: str) -> None:
        self._names.add(name)
        for held in self._waiting.pop(name, ()):
            self._entry(*held)

    def _entry(self, spot: _Spot, holder: Any, key: Any, entry: Any, place: Place) -> None:
        if (cached := cached_in(entry)) is not None:
            self.follow(cached, place)
            put = with_empty_cache(entry, cached)
        elif self._kinds[type(entry)] is not ObjectState.replace:
            self.follow(entry, place)
            return
        elif entry is sys.stdout or entry is sys.stderr:
            return
        else:
            put = stand_in(entry, _written(place))
        self._restored_always.add(id(holder))
        self.undo(lambda: spot.put(holder, key, entry) if spot.get(holder, key) is put else None)
        spot.put(holder, key, put)


def _follow_of_library(state: ObjectState, value: Any, place: Place) -> None:
    """Follow the function within a compiled, cached or otherwise wrapped object, which is of a library."""
    state.follow_library(type(value).__module__)
    if callable(value):
        _follow_wrapped(state, value, place)


def _follow_wrapped(state: ObjectState, value: Any, place: Place) -> None:
    """Follow the function within a compiled, cached or otherwise wrapped one."""
    for name in ("python_function", "__wrapped__"):
        if hasattr(type(value), name) or name in _namespace(value):
            state.follow(getattr(value, name), place)


def _saving(save: Callable[[Any], Undo]) -> Visit:
    return lambda state, value, place: state.undo(save(value))


def _namespace(value: Any) -> dict[str, Any]:
    """Return an object's own dictionary, past what its class makes of `__dict__`; an empty one where it has none."""
    try:
        read = threading.local.__getattribute__ if isinstance(value, threading.local) else object.__getattribute__
        namespace = read(value, "__dict__")
    except AttributeError:
        return {}
    return namespace if isinstance(namespace, dict) else {}


def _written(place: Place | None) -> str:
    if place is None:
        return ""
    holder, name = place
    return _written(holder) + (name if isinstance(name, str) else f"[{safe_repr(name[0])}]")


_BUILT_IN: Final[Mapping[type, Visit | None]] = {
    **dict.fromkeys((int, float, complex, str, bytes, type(None), np.generic, np.dtype, random.SystemRandom), None),
    type(np.random.seed): lambda state, value, place: state.follow(SHARED_GENERATORS[1], place),  # written in Cython
    dict: ObjectState.follow_dict,
    list: ObjectState.follow_list,
    **dict.fromkeys((set, frozenset, deque, tuple), ObjectState.follow_entries),
    type: ObjectState.follow_class,
    types.FunctionType: ObjectState.follow_function,
    **dict.fromkeys((types.MethodType, types.BuiltinMethodType, types.MethodWrapperType), ObjectState.follow_bound),
    types.ModuleType: ObjectState.follow_module,
    functools.partial: ObjectState.follow_partial,
    np.ndarray: ObjectState.follow_array,
    **dict.fromkeys((bytearray, array.array), _saving(saved.save_bytes)),
    random.Random: _saving(saved.save_python_random),
    **dict.fromkeys((np.random.Generator, np.random.BitGenerator), _saving(saved.save_numpy_random)),
    np.random.RandomState: _saving(saved.save_random_state),
    **dict.fromkeys((io.StringIO, io.BytesIO), _saving(saved.save_memory_file)),
}
