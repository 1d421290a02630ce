"""What the recurrent modules of a torch module begin with in the training's own calls, or were said to begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.recurrent_state import Begin
from gatewatch.collector.text import safe_repr
from gatewatch.collector.torch.call_contexts import states_by_module
from gatewatch.collector.torch.calls import as_tuple, read_arguments
from gatewatch.collector.torch.layers import RecurrentLayer, as_array, suffixes, walk
from gatewatch.collector.torch.own_calls import OwnCalls

_Layers = Mapping[str, RecurrentLayer]


class _Taken(NamedTuple):
    """What one call of a module begins with.

    Attributes:
        sequences: B.
        states: each (L, B, units), or fewer dimensions where torch allows it; None where the call was given none.
        versions: of these tensors; a later one has been changed in place. None: they are copies.
        learned: the parameters that may be an initial state, copied.
    """

    sequences: int
    states: tuple[Tensor, ...] | None
    versions: tuple[int, ...] | None
    learned: list[Tensor]


class TorchStates:
    """Sees with which states the training calls the recurrent modules.

    The tensors are held, not copied, from a call to `end()`. A loop that changes them in place before that has its
    states copied from its next call on.

    Args:
        guarded_and_charged: the context in which calls are seen.
        training: whether only calls in training mode count.
    """

    def __init__(self, guarded_and_charged: Callable[[str], AbstractContextManager[None]], *, training: bool) -> None:
        self._calls: OwnCalls[_Taken] = OwnCalls(self._take, guarded_and_charged, training=training)
        self._layers: _Layers = {}
        self._parameters: list[nn.Parameter] = []
        self._copied: set[int] = set()
        self._is_released = False

    def begin(self, module: nn.Module, layers: _Layers) -> None:
        """Watch for the first call of each recurrent module from now on."""
        if self._is_released:  # by the end of the run, in another thread
            return
        if layers is not self._layers:
            self._layers, self._parameters = layers, _own_parameters(module)
        self._calls.begin(dict.fromkeys(layer.module for layer in layers.values() if _has_state(layer.module)))

    def end(self, *, needed: bool) -> dict[str, Begin]:
        """Return layer → what it began with since `begin()`, and watch no longer.

        Args:
            needed: also what lies on another device, and has to be waited for.
        """
        begins: dict[str, Begin] = {}
        for key, taken in self._calls.end().items():
            states = taken.states or ()
            if taken.versions is not None and taken.versions != tuple(state._version for state in states):
                self._copied.add(key)
            elif needed or all(state.device.type == "cpu" for state in states):
                begins |= _by_layer(self._layers, {key: taken})
        return begins

    def release(self) -> None:
        """Forget the modules and what they were called with."""
        self._is_released = True
        self._calls.end()
        self._layers, self._parameters = {}, []

    def _take(self, module: nn.Module, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> _Taken:
        x, hx = read_arguments(*arguments, **options)
        if hx is None:
            return _Taken(_sequences(module, x), None, None, [])
        states = tuple(state.detach() for state in as_tuple(hx))
        copied = id(module) in self._copied or any(state.is_inference() for state in states)
        if copied:
            states = tuple(state.clone() for state in states)
        learned = [parameter.detach().clone() for parameter in self._parameters]
        return _Taken(_sequences(module, x), states, None if copied else tuple(s._version for s in states), learned)


def given_states(module: nn.Module, layers: _Layers, state: Any) -> dict[str, Begin]:
    """Return layer → what it begins with, from what a user gives.

    Args:
        module: that has the layers.
        layers: name → layer.
        state: as `with_initial_state` takes it.

    Raises:
        ConfigError: there is no such layer, or more than one to choose from, or a state is no array (batch, units).
    """
    learned = [parameter.detach() for parameter in _own_parameters(module)]
    taken: dict[int, _Taken] = {}
    for part, its in states_by_module(layers, state).items():
        states = tuple(torch.as_tensor(one).detach() for one in as_tuple(its))
        if not all(one.dim() in (1, 2, 3) for one in states):
            shapes = ", ".join(str(tuple(one.shape)) for one in states)
            raise ConfigError(f"state={safe_repr(state)}: must be arrays (batch, units), not of shape {shapes}")
        if states:
            count = _layers_first(part, states[0]).shape[1]
            taken[id(part)] = _Taken(count, states, None, learned)
    return _by_layer(layers, taken)


def _by_layer(layers: _Layers, taken: Mapping[int, _Taken]) -> dict[str, Begin]:
    begins: dict[str, Begin] = {}
    for name, layer in layers.items():
        call = taken.get(id(layer.module))
        if call is None:
            continue
        if call.states is None:
            begins[name] = Begin(call.sequences, None)
            continue
        k = suffixes(layer.module).index(layer.suffix)
        whole = [as_array(_layers_first(layer.module, state)) for state in call.states]
        learned = [_candidates(call.learned, k, *state.shape[::2]) for state in whole]
        begins[name] = Begin(call.sequences, tuple(state[k] for state in whole), learned)
    return begins


def _candidates(parameters: list[Tensor], k: int, count: int, units: int) -> list[Any]:
    """Return the parameters that may be a state of layer k of so many: (units,) each."""
    sized = [as_array(one).reshape(-1, units) for one in parameters if one.numel() in (units, count * units)]
    return [rows[k if len(rows) == count else 0] for rows in sized]


def _layers_first(module: nn.Module, state: Tensor) -> Tensor:
    """Return a state as (L, B, units), as torch's modules and `with_initial_state` take it."""
    if isinstance(module, nn.RNNCellBase):
        return state.reshape(1, -1, state.shape[-1])
    if state.dim() == 3:
        return state
    return state[None] if len(suffixes(module)) == 1 else state[:, None]


def _sequences(module: nn.Module, x: Any) -> int:
    """Return how many sequences a recurrent module was given."""
    if isinstance(x, PackedSequence):
        return int(x.batch_sizes[0])
    if isinstance(module, nn.RNNCellBase):
        return int(x.shape[0]) if x.dim() == 2 else 1
    return 1 if x.dim() == 2 else int(x.shape[0 if module.batch_first else 1])


def _has_state(module: nn.Module) -> bool:
    return isinstance(module, (nn.RNNBase, nn.RNNCellBase))


def _own_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that classes of a user's hold: a learned initial state is none of a layer of torch's."""
    lists = (nn.ParameterList, nn.ParameterDict)
    owners = [
        part for _, part in walk(module) if isinstance(part, lists) or not type(part).__module__.startswith("torch.nn.")
    ]
    found: dict[int, nn.Parameter] = {}
    for owner in owners:
        with suppress(AttributeError):  # TorchScript's
            found.update({id(one): one for one in owner._parameters.values() if one is not None})
    return list(found.values())
