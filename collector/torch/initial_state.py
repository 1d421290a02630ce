"""The recurrent states that a look begins with, where the module itself gives none."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gatewatch.collector.cells import Cell
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.torch.calls import as_tuple, read_arguments
from gatewatch.collector.torch.layers import RecurrentLayer
from gatewatch.collector.torch.members import parameters


@contextmanager
def with_initial_state(layers: Mapping[str, RecurrentLayer], states: Any) -> Iterator[None]:
    """Let the recurrent modules that this thread calls without an initial state begin with these.

    Args:
        layers: name → layer, as `recurrent_layers` gives them.
        states: path of a module (or the name of its layer) → the `hx` that it takes, tensors or arrays, of a module of
            one layer also as (batch, units); or that of the only recurrent module.

    Raises:
        ConfigError: there is no such module, or more than one to choose from.
    """
    with ExitStack() as stack:
        cells = {layer.module: layer.cell for layer in layers.values()}
        for module, state in _by_module(layers, states).items():
            hook = _Beginning(state, cells[module])
            stack.enter_context(nn.Module.register_forward_pre_hook(module, hook, with_kwargs=True))
        yield


class _Beginning:
    def __init__(self, state: Any, cell: Cell | None) -> None:
        self._state = state
        self._several = cell is not None and cell.states > 1
        self._thread = threading.get_ident()

    def __call__(
        self, module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if threading.get_ident() != self._thread:
            return None
        x, hx = read_arguments(*arguments, **options)
        return ((x, _fitted(module, x, self._state, self._several)), {}) if hx is None else None


def _by_module(layers: Mapping[str, RecurrentLayer], states: Any) -> dict[nn.Module, Any]:
    if states is None:
        return {}
    if not isinstance(states, Mapping):
        modules = {layer.module: layer.path for layer in layers.values()}
        if len(modules) != 1:
            paths = ", ".join(map(repr, modules.values()))
            raise ConfigError(f"state: there are several recurrent modules, {paths}; give a mapping path → state")
        return dict.fromkeys(modules, states)
    by_module = {}
    for name, state in states.items():
        owner = next((layer.module for path, layer in layers.items() if name in (path, layer.path)), None)
        if owner is None:
            has = ", ".join(map(repr, layers))
            raise ConfigError(f"state: {name!r} is no recurrent layer of the module; it has {has}")
        by_module[owner] = state
    return by_module


def _fitted(module: nn.Module, x: Any, state: Any, several: bool) -> Any:
    """The state as the module takes it: in its type, and with a dimension of layers."""
    weight = parameters(module)[0]
    batched = isinstance(module, nn.RNNBase) and (isinstance(x, PackedSequence) or x.dim() == 3)
    parts: list[Tensor] = []
    for part in as_tuple(state):
        tensor = torch.as_tensor(part, dtype=weight.dtype, device=weight.device)
        parts.append(tensor[None] if batched and tensor.dim() == 2 else tensor)
    return tuple(parts) if several else parts[0]
