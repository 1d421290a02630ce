"""Undo, in place, what a call does to Python objects: attributes, containers, arrays, random number generators.

Which objects a call can reach is read from its code: what lies under an attribute, a global or a variable of a closure
that none of its functions names is left alone. So a replay buffer that another thread fills is neither copied nor
restored.
"""

from __future__ import annotations

import array
import copy
import functools
import io
import itertools
import random
import sys
import threading
import types
import warnings
from collections import UserDict, UserList, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

import numpy as np

from gatewatch.collector.errors import GatewatchError
from gatewatch.collector.runtime import saved
from gatewatch.collector.runtime.caches import cached_in, with_empty_cache
from gatewatch.collector.runtime.code_names import ANY_NAME, functions_of, is_of_library, is_users, names_in
from gatewatch.collector.runtime.saved import Undo, is_special
from gatewatch.collector.text import safe_repr

MOST_OBJECTS: Final = 50_000
"""So many objects are followed."""
MOST_BYTES: Final = 256 * 2**20
"""So many bytes of arrays and tensors are copied."""

_ENTRIES: Final = frozenset(
    {
        *("call", "forward", "build", "inner_loop", "get_initial_state"),
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
_PLAIN_CLASSES: Final = (types.SimpleNamespace, UserDict, UserList)
_COPIED_ITERATORS: Final = tuple(map(type, (iter([]), iter(()), iter(range(0)), itertools.count())))

Place = tuple[Any, str | tuple[Any]]
"""Where an object lies: the place of what holds it, or None, and what is written behind that, or a key."""
Visit = Callable[["ObjectState", Any, Place], object]
"""Saves an object, and follows what it holds."""
_Put = Callable[[Any], object]
"""Puts another object in the place of one."""


class NotIsolatedError(GatewatchError):
    """A call uses something whose change cannot be undone, so it was not made to its end."""


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
            self[kind] = _follow_wrapped if any("__call__" in vars(base) for base in kind.__mro__) else None
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

    Attributes:
        left_out: what is not restored → why.
    """

    def __init__(
        self, roots: Mapping[str, Any], kinds: Kinds, names: Collection[str] = (), apart: Collection[Any] = ()
    ) -> None:
        self.left_out: dict[str, str] = {}
        self._kinds = kinds
        self._undo: list[Undo] = []
        self._seen = {id(one): one for one in apart}
        self._most = MOST_OBJECTS + len(self._seen)
        self._classes: set[tuple[type, bool]] = set()
        self._names = {*_ENTRIES, *names}
        self._waiting: dict[str, list[tuple[_Put, Any, Place]]] = {}
        self._bytes = 0
        self._stack: list[tuple[Any, Place]] = [(root, (None, name)) for name, root in roots.items()]
        try:
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
        of_framework = isinstance(value, self._kinds.classes)
        frameworks_own = (dict, list, set, *self._kinds.classes)
        self.undo(saved.save_names(namespace, left_alone=self._kinds.left_alone if of_framework else ()))
        for name, entry in list(namespace.items()):
            if self._kinds[type(entry)] is None:
                continue
            is_called = of_framework and callable(entry)
            is_frameworks = of_framework and name.startswith("_") and isinstance(entry, frameworks_own)
            put = functools.partial(namespace.__setitem__, name)
            self._named(name, put, entry, (place, f".{name}"), at_once=is_called or is_frameworks)
        for kind in filter(is_users, type(value).__mro__):
            for name, slot in vars(kind).items():
                if isinstance(slot, types.MemberDescriptorType):
                    self.undo(saved.save_slot(value, slot))
                    put = functools.partial(slot.__set__, value)
                    self._named(name, put, saved.read_slot(value, slot), (place, f".{name}"))
        self._follow_class(type(value), is_made=False)

    def follow_dict(self, value: dict[Any, Any], place: Place) -> None:
        """Save a dict."""
        kind = saved.dict_type(value)
        self.undo(saved.save_dict(value))
        for key, entry in list(kind.items(value)):
            if self._kinds[type(entry)] is None:
                continue
            self._entry(functools.partial(kind.__setitem__, value, key), entry, (place, (key,)))
        self._follow_attributes(value, place)

    def follow_list(self, value: list[Any], place: Place) -> None:
        """Save a list."""
        self.undo(saved.save_list(value))
        for index, entry in enumerate(list.__iter__(value)):
            if self._kinds[type(entry)] is None:
                continue
            self._entry(functools.partial(list.__setitem__, value, index), entry, (place, (index,)))
        self._follow_attributes(value, place)

    def follow_entries(self, value: Any, place: Place) -> None:
        """Save what is in a set, deque or tuple, and these where they can change."""
        if isinstance(value, set | deque):
            self.undo(saved.save_set(value) if isinstance(value, set) else saved.save_deque(value))
        for entry in list(value):
            self.follow(entry, (place, "[…]"))
        self._follow_attributes(value, place)

    def follow_class(self, value: type, place: Place) -> None:
        """Save the attributes of a class that the code names, and so may make instances of."""
        self._follow_class(value, is_made=not issubclass(value, self._kinds.classes))

    def follow_module(self, value: types.ModuleType, place: Place) -> None:
        """Save what the code names of a module of the user's."""
        if not is_of_library(value.__name__):
            namespace = vars(value)
            self.undo(saved.save_names(namespace, list(namespace)))
            for name, entry in list(namespace.items()):
                put = functools.partial(namespace.__setitem__, name)
                self._named(name, put, entry, (None, f"{value.__name__}.{name}"))

    def follow_function(self, value: types.FunctionType, place: Place) -> None:
        """Save what a function of the user's uses: globals, the closure, its defaults and attributes."""
        if is_of_library(value.__module__):
            return
        used, names = names_in(value.__code__)
        for name in list(self._waiting) if names & ANY_NAME else names:
            self._reach(name)
        namespace = value.__globals__
        self.undo(saved.save_names(namespace, used))
        for name in used & namespace.keys():
            self._entry(functools.partial(namespace.__setitem__, name), namespace[name], (None, name))
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            self._follow_cell(cell, (None, name))
        for held in (value.__defaults__, value.__kwdefaults__, vars(value)):
            self.follow(held, (None, value.__name__))

    def follow_method(self, value: types.MethodType, place: Place) -> None:
        """Follow the object and the function of a method."""
        self.follow(value.__self__, place)
        self.follow(value.__func__, place)

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
            self._follow_class(type(kind), is_made=False)
            self.undo(saved.save_class(kind))
            for name, entry in list(vars(kind).items()):
                is_called = is_special(name) and (is_made or name not in _NOT_CALLED)
                for part in functions_of(entry) if cached_in(entry) is None else (entry,):
                    put = functools.partial(type.__setattr__, kind, name)
                    self._named(name, put, part, (None, f"{kind.__name__}.{name}"), at_once=is_called)

    def _follow_cell(self, cell: types.CellType, place: Place) -> None:
        try:
            entry = cell.cell_contents
        except ValueError:  # it is empty
            return
        if id(cell) not in self._seen:
            self._seen[id(cell)] = cell
            self.undo(saved.save_cell(cell))
            self._entry(functools.partial(setattr, cell, "cell_contents"), entry, place)

    def _named(self, name: str, put: _Put, entry: Any, place: Place, *, at_once: bool = False) -> None:
        """Follow what lies under a name as soon as the code is seen to use the name."""
        if at_once or name in self._names:
            self._entry(put, entry, place)
        else:
            self._waiting.setdefault(name, []).append((put, entry, place))

    def _reach(self, name: str) -> None:
        self._names.add(name)
        for put, entry, place in self._waiting.pop(name, ()):
            self._entry(put, entry, place)

    def _entry(self, put: _Put, entry: Any, place: Place) -> None:
        if (cached := cached_in(entry)) is not None:
            self.follow(cached, place)
            put(with_empty_cache(entry, cached))
        elif self._kinds[type(entry)] is not ObjectState.replace:
            self.follow(entry, place)
        elif entry is not sys.stdout and entry is not sys.stderr:
            put(_stand_in(entry, _written(place)))


class _StandIn:
    """What stands for a generator or a file during a call that must not use it."""

    def __init__(self, own: Any, place: str) -> None:
        self._own, self._place, self._thread = own, place, threading.get_ident()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._used())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._used(), name)

    def _used(self) -> Any:
        if threading.get_ident() != self._thread:
            return self._own
        raise NotIsolatedError(
            f"the model is not looked at: its call uses {self._place}, a {type(self._own).__name__}, which can neither "
            "be copied nor set back"
        )


def _stand_in(value: Any, place: str) -> Any:
    """Return a copy of an iterator, or what raises where the call uses it."""
    if not isinstance(value, _COPIED_ITERATORS):
        return _StandIn(value, place)
    with warnings.catch_warnings():  # Python 3.14 no longer copies those of itertools
        warnings.simplefilter("ignore", DeprecationWarning)
        return copy.copy(value)


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
        namespace = object.__getattribute__(value, "__dict__")
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
    dict: ObjectState.follow_dict,
    list: ObjectState.follow_list,
    **dict.fromkeys((set, frozenset, deque, tuple), ObjectState.follow_entries),
    type: ObjectState.follow_class,
    types.FunctionType: ObjectState.follow_function,
    types.MethodType: ObjectState.follow_method,
    types.ModuleType: ObjectState.follow_module,
    functools.partial: ObjectState.follow_partial,
    np.ndarray: ObjectState.follow_array,
    **dict.fromkeys((bytearray, array.array), _saving(saved.save_bytes)),
    random.Random: _saving(saved.save_python_random),
    **dict.fromkeys((np.random.Generator, np.random.BitGenerator), _saving(saved.save_numpy_random)),
    np.random.RandomState: _saving(lambda value: functools.partial(value.set_state, value.get_state(legacy=False))),
    **dict.fromkeys((io.StringIO, io.BytesIO), _saving(saved.save_memory_file)),
}
