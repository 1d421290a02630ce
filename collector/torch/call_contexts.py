"""Contexts for calling a module to look at it: apart from the training, and from given recurrent states."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._python_dispatch import TorchDispatchMode

from gatewatch.collector.cells import Cell
from gatewatch.collector.checks import choose_layers
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.runtime.random_state import preserve_random_state
from gatewatch.collector.torch.calls import as_tuple, read_arguments
from gatewatch.collector.torch.layers import RecurrentLayer, parameters, torch_class

Forward = Callable[..., Any]
"""Called in the place of a module's forward: with the module, its own forward, and the arguments."""


@contextmanager
def isolated() -> Iterator[None]:
    """Keep what a forward does besides what it does with its module from the process.

    Inside: no gradients, nothing is compiled, and a call to the other processes of a distributed training raises a
    RuntimeError, since they do not take part and it would wait for them. On exit the random states of Python, NumPy and
    torch, on CPU and CUDA, are put back.
    """
    with ExitStack() as stack:
        stack.enter_context(preserve_random_state())
        stack.enter_context(torch_isolated())
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            stack.enter_context(_RefuseCollectives())  # type: ignore[no-untyped-call]  # torch is typed in part
        yield


@contextmanager
def torch_isolated() -> Iterator[None]:
    """While open, record no gradients and run functions uncompiled; torch's random state is put back on exit."""
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch is typed in part
    devices = range(torch.cuda.device_count()) if started else ()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(torch.no_grad())
        if "torch._dynamo" in sys.modules:  # imported where something is compiled; importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


class _RefuseCollectives(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch is typed in part
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
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
        for module, state in _by_module(layers, states).items():
            stack.enter_context(replaced_forward(module, _begin_with(state, cells[module])))
        yield


@contextmanager
def replaced_forward(module: nn.Module, forward: Forward) -> Iterator[None]:
    """While open, call another function for torch's own forward of a recurrent module.

    It does not matter how that is reached: by calling the module, by `module.forward(x)`, or by `super().forward(x)` in
    a class of the user's with a forward of its own. For that the module is of a class made for it, in whose order of
    bases one with the function comes before torch's.

    Args:
        module: the module.
        forward: called with the module, torch's own forward of it, and the arguments.
    """
    kind, stock = type(module), torch_class(module)

    class Between(stock):  # type: ignore[misc, valid-type]  # which one it is depends on the module
        def forward(self, *arguments: Any, **options: Any) -> Any:
            own = super().forward
            return forward(self, own, *arguments, **options) if self is module else own(*arguments, **options)

    names = {name: kind.__dict__[name] for name in ("__module__", "__qualname__", "__doc__") if name in kind.__dict__}
    extended = _extend(kind, (Between,) if kind is stock else (kind, Between), names)
    object.__setattr__(module, "__class__", extended)
    try:
        yield
    finally:
        object.__setattr__(module, "__class__", kind)


def _extend(kind: type, bases: tuple[type, ...], names: dict[str, Any]) -> type:
    """Return a class whose objects are laid out as those of a class of the user's, so that one can be the other."""

    class Meta(type(kind)):  # type: ignore[misc]  # which one it is depends on the class
        def mro(cls) -> Any:
            """Put `_Unannounced` first: as the first of the bases it would decide on the layout."""
            first, *rest = super().mro()
            return [first, *rest] if _Unannounced in rest else [first, _Unannounced, *rest]

    return Meta(kind.__name__, bases, names)


class _Unannounced:
    def __init_subclass__(cls, **options: Any) -> None:
        """Keep a subclass from whoever counts those of the user's class."""


def _begin_with(state: Any, cell: Cell | None) -> Forward:
    """Return the forward that gives a module a state, where it is called without one."""
    several = cell is not None and cell.states > 1

    def forward(module: nn.Module, own: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        x, hx = read_arguments(*arguments, **options)
        return own(x, _fitted(module, x, state, several) if hx is None else hx)

    return forward


def _by_module(layers: Mapping[str, RecurrentLayer], states: Any) -> dict[nn.Module, Any]:
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
