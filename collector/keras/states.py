"""The states that a Keras model's stateful layers hold: what the next call of the model begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from gatewatch.collector.arrays import Array
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.keras.inputs import as_array
from gatewatch.collector.keras.layers import cell_of, inner_cells, offers_history
from gatewatch.collector.keras.optimizers import numpy_of
from gatewatch.collector.recurrent_state import Begin


def stateful_layers(layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some recurrent layers that keep their states from one call to the next."""
    return {
        path: layer
        for path, layer in layers.items()
        if isinstance(layer, keras.layers.RNN) and not offers_history(layer) and layer.stateful
    }


def present_states(layers: Mapping[str, Any]) -> dict[str, Begin]:
    """Return layer → what its next call begins with; nothing of a layer that is not stateful, or was never built."""
    begins: dict[str, Begin] = {}
    for path, layer in stateful_layers(layers).items():
        if layer.states is not None:
            begins |= _by_cell(path, layer, [numpy_of(s.value, copy=True) for s in keras.tree.flatten(layer.states)])
    return begins


def given_states(layers: Mapping[str, Any], states: Mapping[str, Any]) -> dict[str, Begin]:
    """Return layer → what it begins with, from what a user gives: path of a layer → its states.

    Raises:
        ConfigError: a state is not (batch, units).
    """
    begins: dict[str, Begin] = {}
    for path, given in states.items():
        parts = [np.asarray(as_array(part)) for part in keras.tree.flatten(given)]
        if path not in layers or not parts:
            continue
        if any(part.ndim != 2 or len(part) != len(parts[0]) for part in parts):
            shapes = ", ".join(str(part.shape) for part in parts)
            raise ConfigError(f"state of layer {path!r}: must be arrays (batch, units), not of shape {shapes}")
        begins |= _by_cell(path, layers[path], parts)
    return begins


class KerasStates:
    """Tells what the sequences of a step began with, in `fit` and in loops.

    In `fit` the states are read before a batch. A loop has to call `step` before the model; that it does shows at its
    first step: then the states are still those that the run began with.

    Args:
        layers: path → recurrent layer.
        is_loop: whether it is a loop of a user's own.
        warn_once: logs what cannot be recorded.
    """

    def __init__(self, layers: Mapping[str, Any], is_loop: bool, warn_once: Callable[[str], None]) -> None:
        self._is_loop, self._warn_once = is_loop, warn_once
        self._is_in_order = is_loop
        self._before = present_states(layers) if is_loop else {}

    def before_batch(self, layers: Mapping[str, Any], synchronise: Callable[[], object]) -> None:
        """Read, in `fit`, what the batch that comes now begins with.

        Args:
            layers: path → recurrent layer.
            synchronise: brings the layers up to date, where a fit on JAX keeps their states elsewhere.
        """
        if stateful := stateful_layers(layers):
            synchronise()
            self._before = present_states(stateful)

    def of_step(self, layers: Mapping[str, Any], *, is_first: bool) -> dict[str, Begin]:
        """Return layer → what the sequences of this step began with; nothing where that is not known.

        Args:
            layers: path → recurrent layer.
            is_first: whether it is the first step of the run.
        """
        before, self._before = self._before, {}
        if not self._is_loop:
            return before
        present = present_states(layers) if self._is_in_order else {}
        if is_first and not _is_zero(present) and not _is_same(present, before):
            self._is_in_order = False
            self._warn_once(
                "the states that sequences begin with are not recorded: the model is called before step();"
                " call step() first, or give it state="
            )
            return {}
        return present


def _is_zero(begins: Mapping[str, Begin]) -> bool:
    return all(begin.is_initial().all() for begin in begins.values())


def _is_same(begins: Mapping[str, Begin], others: Mapping[str, Begin]) -> bool:
    return begins.keys() == others.keys() and all(
        np.array_equal(part, other)
        for path, begin in begins.items()
        for part, other in zip(begin.states or (), others[path].states or (), strict=True)
    )


def _by_cell(path: str, layer: Any, parts: list[Array]) -> dict[str, Begin]:
    """Divide the states of a stack of cells, which are named as their gates are."""
    cells = inner_cells(layer) if isinstance(layer, keras.layers.RNN) else [("", layer)]
    counts = [entry.states if (entry := cell_of(cell)) is not None else len(parts) for _, cell in cells]
    if sum(counts) != len(parts):
        return {path: Begin(len(parts[0]), tuple(parts))}
    begins: dict[str, Begin] = {}
    for (suffix, _), count in zip(cells, counts, strict=True):
        own, parts = parts[:count], parts[count:]
        begins[path + suffix] = Begin(len(own[0]), tuple(own))
    return begins
