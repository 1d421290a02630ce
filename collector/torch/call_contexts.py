"""Contexts for calling a module to look at it: apart from the training, and from given recurrent states."""

from __future__ import annotations

import functools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._python_dispatch import TorchDispatchMode

from gatewatch.collector.cells import Cell
from gatewatch.collector.checks import choose_layers
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.runtime.fork import reset_in_forked_child
from gatewatch.collector.torch.calls import as_tuple, read_arguments
from gatewatch.collector.torch.layers import RecurrentLayer, parameters, torch_class

Forward = Callable[..., Any]
"""Called in the place of a module's forward: with the module, its own forward, and the arguments."""


@contextmanager
def isolated() -> Iterator[None]:
    """Keep what a forward does besides what it does with its module from the process.

    Inside: no gradients, nothing is compiled, and a call to the other processes of a distributed training raises a
    RuntimeError, since they do not take part and it would wait for them.
    """
    with ExitStack() as stack:
        stack.enter_context(torch_isolated())
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            stack.enter_context(_RefuseCollectives())  # type: ignore[no-untyped-call]  # torch is typed in part
        yield


@contextmanager
def torch_isolated() -> Iterator[None]:
    """While open, record no gradients and run functions uncompiled; torch's defaults are put back on exit."""
    with ExitStack() as stack:
        stack.enter_context(_defaults_restored())
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # imported where something is compiled; importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def is_recorded_for_later() -> bool:
    """Return whether torch.compile or a CUDA graph records calls to run them later: then no value may be copied."""
    return torch.compiler.is_compiling() or (
        torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()  # type: ignore[no-untyped-call]  # torch is typed in part
    )


@contextmanager
def _defaults_restored() -> Iterator[None]:
    """Put back, on exit, the type and the device that torch gives to tensors that are given none."""
    dtype, device = torch.get_default_dtype(), _default_device()
    try:
        yield
    finally:
        if torch.get_default_dtype() is not dtype:
            torch.set_default_dtype(dtype)
        if _default_device() != device:
            torch.set_default_device(device)


def _default_device() -> torch.device | None:
    """Return what torch.set_default_device has set in this thread; None where it has set nothing."""
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else context.device


class _RefuseCollectives(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch is typed in part
    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "c10d" in func.namespace:
            raise RuntimeError(
                f"its forward calls {func.__name__}, which waits for the other processes, and these do not look at "
                "theirs: it cannot be looked at in a distributed training"
            )
        return func(*args, **(kwargs or {}))


@contextmanager
def with_initial_state(layers: Mapping[str, RecurrentLayer], states: Any) -> Iterator[None]:
    """Give initial states to the recurrent modules that are called without one.

    Args:
        layers: name → layer, as `recurrent_layers` returns them.
        states: path of a module (or the name of its layer) → the `hx` that it takes, as tensors or arrays. A module of
            one layer also takes (batch, units). If there is a single recurrent module, its `hx` alone is enough.

    Raises:
        ConfigError: there is no such module, or more than one to choose from.
    """
    with ExitStack() as stack:
        cells = {layer.module: layer.cell for layer in layers.values()}
        for module, state in states_by_module(layers, states).items():
            stack.enter_context(replaced_forward(module, _begin_with(state, cells[module])))
        yield


@contextmanager
def replaced_forward(module: nn.Module, forward: Forward) -> Iterator[None]:
    """While open, call another function for torch's own forward of a recurrent module.

    It does not matter how that is reached: by calling the module, by `module.forward(x)`, or, inside
    `forwards_passed_on`, by `super().forward(x)` in a class of the user's with a forward of its own. The module keeps
    its class: whoever counts subclasses, or compares types, sees nothing.

    Args:
        module: the module.
        forward: called with the module, torch's own forward of it, and the arguments.
    """
    name = _REPLACED if _has_own_forward(module) else "forward"
    replaced = vars(module).setdefault(name, _Replaced(module, _passed_on.own(torch_class(module))))
    replaced.forwards.append(forward)
    try:
        yield
    finally:
        replaced.forwards.remove(forward)
        if not replaced.forwards:
            vars(module).pop(name, None)  # a copy may be emptied by now


@contextmanager
def forwards_passed_on(modules: Iterable[nn.Module]) -> Iterator[None]:
    """While open, let `replaced_forward` reach those of the modules whose class has a forward of its own.

    What torch's own forward does for other modules stays as it is.
    """
    kinds = {torch_class(module) for module in modules if _has_own_forward(module)}
    for kind in kinds:
        _passed_on.begin(kind)
    try:
        yield
    finally:
        for kind in kinds:
            _passed_on.end(kind)


_REPLACED: Final = "_gatewatch_forward"
"""The attribute of a module with a forward of its own that says what replaces torch's."""


def _has_own_forward(module: nn.Module) -> bool:
    kind, stock = type(module), torch_class(module)
    in_place = vars(module).get("forward")
    return not isinstance(in_place, _Replaced | None) or (kind is not stock and kind.forward is not stock.forward)


class _Replaced:
    """What is called for torch's own forward of a module. A copy of the module, or its pickle, has torch's again."""

    def __init__(self, module: nn.Module, own: Callable[..., Any]) -> None:
        self.module, self.own = module, own
        self.forwards: list[Forward] = []

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        call: Callable[..., Any] = partial(self.own, self.module)
        for forward in reversed(self.forwards):
            call = partial(forward, self.module, call)
        return call(*arguments, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial, (torch_class(self.module).forward, self.module)  # pickled by its name


class _PassedOn:
    """The classes of torch's whose forward passes calls on, with their own forward, and how many looks need it."""

    def __init__(self) -> None:
        self._own: dict[type, Callable[..., Any]] = {}
        self._looks: Counter[type] = Counter()
        self.after_fork_in_child()
        reset_in_forked_child(self)

    def after_fork_in_child(self) -> None:
        """Replace the lock, which another thread may have held. A forward that passes on may stay: it does no harm."""
        self._lock = threading.Lock()

    def own(self, kind: type[nn.Module]) -> Callable[..., Any]:
        return self._own.get(kind, kind.forward)

    def begin(self, kind: Any) -> None:
        with self._lock:
            self._looks[kind] += 1
            if kind in self._own:
                return
            self._own[kind] = own = kind.forward

            @functools.wraps(own)
            def forward(module: nn.Module, *arguments: Any, **options: Any) -> Any:
                replaced = vars(module).get(_REPLACED)
                call = replaced if isinstance(replaced, _Replaced) else partial(own, module)
                return call(*arguments, **options)

            kind.forward = forward

    def end(self, kind: Any) -> None:
        with self._lock:
            self._looks[kind] -= 1
            if not self._looks[kind]:
                kind.forward = self._own.pop(kind)


_passed_on: Final = _PassedOn()


def _begin_with(state: Any, cell: Cell | None) -> Forward:
    """Return the forward that gives a module a state, where it is called without one."""
    several = cell is not None and cell.states > 1

    def forward(module: nn.Module, own: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        x, hx = read_arguments(*arguments, **options)
        return own(x, _fitted(module, x, state, several) if hx is None else hx)

    return forward


def states_by_module(layers: Mapping[str, RecurrentLayer], states: Any) -> dict[nn.Module, Any]:
    """Return recurrent module → its state, from what `with_initial_state` takes.

    Raises:
        ConfigError: there is no such module, or more than one to choose from.
    """
    if states is None:
        return {}
    if not isinstance(states, Mapping):
        modules = {layer.module: layer.path for layer in layers.values()}
        if len(modules) != 1:
            paths = ", ".join(map(repr, modules.values()))
            raise ConfigError(f"state: there are several recurrent modules, {paths}; give a mapping path → state")
        return dict.fromkeys(modules, states)
    chosen = choose_layers(layers, states, lambda layer: layer.path, "module", argument="state")
    return {layer.module: states[name if name in states else layer.path] for name, layer in chosen.items()}


def _fitted(module: nn.Module, x: Any, state: Any, several: bool) -> Any:
    """Return the state as the module takes it: in its type, and with a dimension of layers."""
    weight = parameters(module)[0]
    batched = isinstance(module, nn.RNNBase) and (isinstance(x, PackedSequence) or x.dim() == 3)
    parts: list[Tensor] = []
    for part in as_tuple(state):
        tensor = torch.as_tensor(part, dtype=weight.dtype, device=weight.device)
        parts.append(tensor[None] if batched and tensor.dim() == 2 else tensor)
    return tuple(parts) if several else parts[0]
