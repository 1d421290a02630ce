"""A copy of a module to look at: whatever its forward changes, it changes in the copy.

`copy.deepcopy` is not enough: it refuses a hidden state that is part of a graph, leaves the variables of closures
shared, and calls what a class says of its own copies, such as that of DistributedDataParallel.
"""

from __future__ import annotations

import copy
import enum
import functools
import io
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from gatewatch.collector.base_monitor import BaseMonitor
from gatewatch.collector.errors import ConfigError, TooLargeError
from gatewatch.collector.runtime.code_names import package_of
from gatewatch.collector.runtime.saved import MISSING, read_slot
from gatewatch.collector.text import describe_exception
from gatewatch.collector.torch.layers import modules, wrapped
from gatewatch.collector.torch.module_shells import StandIn, emptied, empty_module, slots_of
from gatewatch.collector.torch.random_draws import copies_itself, draws_undone

_OF_COMPILING: Final = ("_compiled_call_impl", "_compile_kwargs")
"""What torch, and Lightning's hook in `torch.compile`, note in a module that is compiled: a copy is not."""
_MOST_OBJECTS: Final = 100_000
"""A module that holds more holds a trainer or a data set, which cannot be copied at each capture."""
_LARGEST_ARRAY: Final = 64 * 2**20
"""Bytes: a larger array of NumPy is data that a forward reads, such as the prices of an environment. It is shared."""
_FSDP: Final = "_fsdp_wrapped_module"
"""The child of FullyShardedDataParallel: what it wraps."""
_CODE: Final = (type, types.ModuleType)
_AS_THEY_ARE: Final = (
    *(*_CODE, type(None), bool, int, float, complex, str, bytes, range, enum.Enum, types.CodeType),
    *(type(threading.Lock()), type(threading.RLock())),  # whoever else holds one holds the original
    *(np.generic, np.dtype, torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size, BaseMonitor),
)
_OF_THREADS: Final = frozenset({"threading", "queue", "_queue", "concurrent", "multiprocessing", "asyncio", "_asyncio"})
"""Where the types of threads, and of what hands something to another thread or process, are from."""
_HANDLES: Final = ("torch._C", "torch.cuda", "torch.distributed", "torch.jit")
"""Where the types of streams, process groups and compiled functions are from: they keep no values."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A module's copy.

    Attributes:
        module: the copy, in inference mode. What wraps the module to train it on several devices, or compiled, is not
            there.
        originals: all that was copied, and what code there is: functions, classes, modules of Python's.
        copies: `id` of one of these → its copy, or itself.
        shared: what could not be copied: attribute → why.
        copy_also: copies what is called beside the module, such as a loss, and what it shares with the module only
            once; modules in it are in inference mode. Raises what `twin_of` raises.
    """

    module: nn.Module
    originals: list[Any]
    copies: dict[int, Any]
    shared: dict[str, str]
    copy_also: Callable[[Any], Any]


@contextmanager
def twin_of(module: nn.Module) -> Iterator[Twin]:
    """Copy a module with all that it holds, parameters and buffers included; on exit the copy is emptied.

    Raises:
        ConfigError: it holds something whose use cannot be undone, such as a generator, or too much.
    """
    copier = _Copier()
    try:
        twin = copier.copy_all(module)
        _set_inference_mode(modules(twin))
        yield Twin(twin, copier.originals, copier.copies, copier.shared, copier.copy_also)
    finally:
        for part in copier.modules:
            emptied(part)


def _set_inference_mode(parts: Iterable[nn.Module]) -> None:
    for part in parts:
        if "training" in vars(part):
            vars(part)["training"] = False  # not eval(), which a module may have made do more
        else:  # TorchScript's
            part.training = False


class _Copier:
    """Copies each object once, however often and from wherever it is referred to."""

    def __init__(self) -> None:
        self.copies: dict[int, Any] = {}
        self.shared: dict[str, str] = {}
        self.modules: list[nn.Module] = []
        self.originals: list[Any] = []  # an id belongs to its object for as long as that lives
        self._kept: list[Any] = []
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._ways: dict[type, _Way | None] = {}
        self._where = "the module"

    def copy_all(self, module: nn.Module) -> Any:
        """Copy a module and all that it holds."""
        try:
            return self(module)
        except RecursionError as error:
            raise ConfigError(
                f"the module {type(module).__name__} cannot be looked at: to copy {self._where} takes more nested "
                "calls than Python allows; sys.setrecursionlimit() allows more"
            ) from error

    def copy_also(self, original: Any) -> Any:
        """Copy what is called beside the module."""
        self._where, copied = "the loss", len(self.modules)
        twin = self(original)
        _set_inference_mode([part for new in self.modules[copied:] for part in modules(new)])
        return twin

    def __call__(self, original: Any) -> Any:
        kind: Any = type(original)
        if kind not in self._ways:
            self._ways[kind] = _way(kind)
        way = self._ways[kind]
        if way is None:
            return original
        key = id(original)
        if key not in self.copies:
            if len(self.originals) > _MOST_OBJECTS:
                raise TooLargeError(
                    f"{self._where} leads to more than {_MOST_OBJECTS:,} objects, too many to copy at each capture; "
                    "do not keep a trainer, an environment or a data set in the module"
                )
            self.originals.append(original)
            with draws_undone() if copies_itself(kind) else nullcontext():
                self.copies[key] = self._copy(original, way)
        return self.copies[key]

    def _copy(self, original: Any, way: _Way) -> Any:
        try:
            return way(self, original)
        except (ConfigError, RecursionError):
            raise
        except Exception as error:
            if isinstance(original, nn.Module):
                name, why = type(original).__name__, describe_exception(error)
                raise ConfigError(
                    f"a module of class {name} cannot be looked at, since copying it fails: {why}"
                ) from error
            return self._share(original, describe_exception(error))

    def _keep(self, original: Any, twin: Any) -> Any:
        """Note a copy before what it holds is copied, since that may lead back to it."""
        self.copies[id(original)] = twin
        return twin

    def _share(self, original: Any, why: str) -> Any:
        if isinstance(original, Iterator) and not isinstance(original, io.IOBase):
            raise ConfigError(
                f"{self._where} is a {type(original).__name__}, which cannot be copied: a look would take from it what "
                "the training is to be given; take from it outside of the module, or give the module a list"
            )
        if not str(type(original).__module__).startswith(_HANDLES):
            self.shared[self._where] = f"a {type(original).__name__}: {why}"
        return original

    def _attributes(self, owner: Any, attributes: dict[str, Any]) -> dict[str, Any]:
        before, copies = self._where, {}
        for name, value in list(attributes.items()):
            self._where = f"{type(owner).__name__}.{name}"
            copies[name] = self(value)
        self._where = before
        return copies

    # One way for each kind of object.

    def _module(self, original: nn.Module) -> Any:
        if _FSDP in original._modules:
            raise ConfigError(
                f"{self._where} is a {type(original).__name__}, which gathers its weights from other processes at each "
                "call; only a module whose weights are whole in this process can be looked at"
            )
        kind = type(original)
        if (name := wrapped(original)) is not None:
            stand_in = self._keep(original, StandIn())
            self.modules.append(stand_in)
            stand_in.add_module(name, self(original._modules[name]))
            return stand_in
        if isinstance(original, torch.jit.ScriptModule):
            return copy.deepcopy(original)
        module: nn.Module = self._keep(original, empty_module(kind))
        self.modules.append(module)
        get_state: Callable[[nn.Module], dict[str, Any]] = kind.__getstate__
        state = vars(original) if get_state.__module__.startswith("torch.") else get_state(original)
        attributes = self._attributes(original, {n: v for n, v in state.items() if n not in _OF_COMPILING})
        if state is vars(original):
            vars(module).update(attributes)
        else:  # such as Lightning's, which leaves out the trainer
            module.__setstate__(attributes)  # type: ignore[no-untyped-call]  # torch is typed in part
        for slot in slots_of(kind):
            if (held := read_slot(original, slot)) is not MISSING:
                slot.__set__(module, self(held))
        return module

    def _tensor(self, original: Tensor) -> Tensor:
        kind = type(original)
        if kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
            raise ConfigError(
                f"{self._where} is a {kind.__name__}, of which this process may hold a part only; only a module of "
                "plain tensors can be looked at"
            )
        source = original.detach()
        twin = source.clone() if _is_special(source) else self._view(source)
        if kind is not Tensor:
            twin = Tensor._make_subclass(kind, twin)
        twin.requires_grad_(original.requires_grad and original.is_leaf)
        vars(self._keep(original, twin)).update(self._attributes(original, vars(original)))
        return twin

    def _view(self, source: Tensor) -> Tensor:
        """Copy the memory of a tensor once: views of it stay views of one memory, as the weights of cuDNN are."""
        storage = source.untyped_storage()
        key = storage._cdata
        if key not in self._storages:
            self._kept.append(storage)
            self._storages[key] = storage.clone()  # type: ignore[no-untyped-call]  # torch is typed in part
        empty = torch.empty(0, dtype=source.dtype, device=source.device)
        return empty.set_(self._storages[key], source.storage_offset(), source.size(), source.stride())

    def _array(self, original: np.ndarray[Any, Any]) -> Any:
        if original.nbytes > _LARGEST_ARRAY:
            return self._share(original, f"it has {original.nbytes / 2**20:,.0f} MiB")
        twin = self._keep(original, np.array(original, order="K", subok=True))
        if original.dtype.hasobject:
            for place, value in enumerate(original.flat):
                twin.flat[place] = self(value)
        return twin

    def _list(self, original: list[Any]) -> list[Any]:
        twin: list[Any] = self._keep(original, [])
        twin.extend(map(self, original))
        return twin

    def _dict(self, original: dict[Any, Any]) -> dict[Any, Any]:
        twin: dict[Any, Any] = self._keep(original, type(original)())
        twin.update((self(key), self(value)) for key, value in list(original.items()))
        return twin

    def _tuple(self, original: tuple[Any, ...]) -> Any:
        twins = tuple(map(self, original))
        return self.copies.get(id(original), twins)  # where one of them leads back to it, there is one by now

    def _function(self, original: types.FunctionType) -> Any:
        """Copy a function that encloses variables, or has defaults or attributes, together with these."""
        if hasattr(original, "_torchdynamo_orig_callable"):  # torch.compile's
            return self(original._torchdynamo_orig_callable)
        cells = original.__closure__ or ()
        held = [cell.cell_contents for cell in cells if cell != _EMPTY]
        held += [*(original.__defaults__ or ()), *(original.__kwdefaults__ or {}).values(), *vars(original).values()]
        if all(isinstance(value, _AS_THEY_ARE) for value in held):
            return original
        enclosed = tuple(map(self, cells))
        twin = types.FunctionType(original.__code__, original.__globals__, original.__name__, None, enclosed)
        self._keep(original, functools.update_wrapper(twin, original, updated=()))
        twin.__defaults__, twin.__kwdefaults__ = self(original.__defaults__), self(original.__kwdefaults__)
        vars(twin).update(self._attributes(original, vars(original)))
        return twin

    def _cell(self, original: types.CellType) -> types.CellType:
        twin: types.CellType = self._keep(original, types.CellType())
        if original != _EMPTY:
            twin.cell_contents = self(original.cell_contents)
        return twin

    def _method(self, original: types.MethodType) -> Any:
        return types.MethodType(self(original.__func__), self(original.__self__))

    def _method_of_builtin(self, original: types.BuiltinMethodType) -> Any:
        owner = original.__self__
        return original if owner is None else getattr(self(owner), original.__name__)

    def _cached_function(self, original: functools._lru_cache_wrapper[Any]) -> Any:
        return functools.lru_cache(**original.cache_parameters())(self(original.__wrapped__))

    def _weak_reference(self, original: weakref.ref[Any]) -> Any:
        target = original()
        return original if target is None else weakref.ref(self(target))

    def _local(self, original: threading.local) -> Any:
        """Copy what this thread, which looks, has of its own."""
        twin = self._keep(original, threading.local())
        vars(twin).update(self._attributes(original, vars(original)))
        return twin

    def _generator(self, original: torch.Generator) -> torch.Generator:
        twin = torch.Generator(original.device)
        twin.set_state(original.get_state())
        return twin

    def _code(self, original: Any) -> Any:
        return original

    def _of_threads(self, original: Any) -> Any:
        return self._share(original, "another thread or process may wait at its other end")

    def _by_reduction(self, original: Any) -> Any:
        """Copy by what `pickle` and `copy` ask of any class, its `__reduce_ex__`."""
        if hasattr(type(original), "__del__"):
            return self._share(original, "its class has a __del__, which would be called for the copy too")
        reduced = original.__reduce_ex__(4)
        if isinstance(reduced, str):  # the name of something that there is once
            return original
        self._kept.append(reduced)
        parts: list[Any] = [*reduced, *[None] * (6 - len(reduced))]
        make, arguments, state, items, pairs, set_state = parts
        twin = self._keep(original, make(*map(self, arguments)))
        if set_state is not None:
            set_state(twin, self(state))
        elif state is not None and hasattr(twin, "__setstate__"):
            twin.__setstate__(self(state))
        elif state is not None:
            attributes, slots = state if isinstance(state, tuple) else (state, None)
            if attributes:
                vars(twin).update(self._attributes(original, attributes))
            for name, value in self._attributes(original, slots or {}).items():
                setattr(twin, name, value)
        for item in items or ():
            twin.append(self(item))
        for key, value in pairs or ():
            twin[self(key)] = self(value)
        return twin


_EMPTY: Final = types.CellType()
_Way = Callable[[_Copier, Any], Any]
_EXACTLY: Final[Mapping[type, _Way]] = {
    list: _Copier._list,
    dict: _Copier._dict,
    OrderedDict: _Copier._dict,
    tuple: _Copier._tuple,
    threading.local: _Copier._local,
}
_WAYS: Final[Mapping[type, _Way]] = {
    nn.Module: _Copier._module,
    Tensor: _Copier._tensor,
    np.ndarray: _Copier._array,
    types.FunctionType: _Copier._function,
    types.CellType: _Copier._cell,
    types.MethodType: _Copier._method,
    types.BuiltinMethodType: _Copier._method_of_builtin,
    functools._lru_cache_wrapper: _Copier._cached_function,
    weakref.ref: _Copier._weak_reference,
    torch.Generator: _Copier._generator,
}


def _way(kind: type) -> _Way | None:
    """Return how objects of a type are copied; None where they never change and need not be."""
    if issubclass(kind, _CODE):
        return _Copier._code
    if issubclass(kind, _AS_THEY_ARE):
        return None
    if any(package_of(base.__module__) in _OF_THREADS for base in kind.__mro__):
        return _Copier._of_threads
    ways = (way for base, way in _WAYS.items() if issubclass(kind, base))
    return _EXACTLY.get(kind) or next(ways, _Copier._by_reduction)


def _is_special(tensor: Tensor) -> bool:
    """Return whether a tensor is more than a view of memory, or one of a small part of much memory."""
    if tensor.layout is not torch.strided or tensor.is_meta:
        return True
    is_small_part = tensor.untyped_storage().nbytes() > max(_LARGEST_ARRAY, 2 * tensor.nbytes)
    return is_small_part or tensor.is_quantized or tensor.is_conj() or tensor.is_neg()
