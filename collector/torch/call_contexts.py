"""Contexts for calling a module to capture it: restore its state afterwards, and begin with given recurrent states."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.rnn import PackedSequence

from gatewatch.collector.cells import Cell
from gatewatch.collector.checks import choose_layers
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.torch.calls import as_tuple, read_arguments
from gatewatch.collector.torch.layers import COMPILED, RecurrentLayer, buffers, modules, parameters
from gatewatch.collector.trace import LARGEST_STATE


@contextmanager
def preserve_state(module: nn.Module) -> Iterator[None]:
    """Let calls of a module leave nothing behind.

    Inside: inference mode, no gradients. Compiled code is not used, because torch.compile would compile it once more
    for inference.

    On exit these are restored: the mode of every submodule, the random state of CPU and CUDA, attributes that were
    assigned (such as a hidden state that a policy keeps), and buffers of up to 65,536 values that were changed in
    place.
    """
    parts = modules(module)
    modes = [(one, one.training) for one in parts]
    members = [
        (present, dict(present))
        for one in parts
        if not isinstance(one, torch.jit.ScriptModule)  # it has no attributes of Python's
        for present in (vars(one), one._parameters, one._buffers, one._modules)
    ]
    counters = [
        (buffer, buffer._version, buffer.clone())
        for buffer in buffers(module)
        if not is_lazy(buffer) and buffer.numel() <= LARGEST_STATE and not buffer.is_inference()
    ]
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch is typed in part
    devices = range(torch.cuda.device_count()) if started else ()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(torch.no_grad())
        if any(COMPILED in one._modules or vars(one).get("_compiled_call_impl") is not None for one in parts):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            for one in parts:
                _set_mode(one, False)  # not eval(), which a module may have made do more
            yield
        finally:
            for one, training in modes:
                _set_mode(one, training)
            for present, before in members:
                present.update(before)  # with none missing at any moment: another thread may be at work
                for name in present.keys() - before.keys():
                    del present[name]
            for buffer, version, value in counters:
                if buffer._version != version:
                    buffer.copy_(value)


@contextmanager
def with_initial_state(layers: Mapping[str, RecurrentLayer], states: Any) -> Iterator[None]:
    """Give initial states to the recurrent modules that this thread calls without one.

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
            hook = _begin_with(state, cells[module])
            stack.enter_context(nn.Module.register_forward_pre_hook(module, hook, with_kwargs=True))
        yield


def _set_mode(module: nn.Module, training: bool) -> None:
    """Set the mode past a `__setattr__` of the user's own, which may do anything."""
    if "training" in vars(module):
        vars(module)["training"] = training
    else:
        module.training = training


def _begin_with(state: Any, cell: Cell | None) -> Callable[..., Any]:
    """Return the hook that gives a module a state, where this thread calls it without one."""
    thread = threading.get_ident()
    several = cell is not None and cell.states > 1

    def hook(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if threading.get_ident() != thread:
            return None
        x, hx = read_arguments(*arguments, **options)
        return ((x, _fitted(module, x, state, several)), {}) if hx is None else None

    return hook


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
