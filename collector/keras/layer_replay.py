"""One call of a Keras recurrent layer, replayed: its gates, and its output as Keras's own call would give it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import keras
import numpy as np
from keras.src.backend.common.stateless_scope import get_stateless_scope

from gatewatch.collector.arrays import Array, Mask
from gatewatch.collector.cells import Cells
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.keras.layers import ACTIVATION_NAMES, cell_of, inner_cells, name_of
from gatewatch.collector.keras.optimizers import numpy_of
from gatewatch.collector.replay import rounding
from gatewatch.collector.replay.recurrence import Replay
from gatewatch.collector.replay.rounding import Change

_VERIFIED: Final = 8
"""So many sequences and steps of a batch are compared."""

States = Sequence[Any] | None
"""What a call begins with, in Keras's order and form; None for zeros."""


class LayerReplay(NamedTuple):
    """One call of a layer.

    Attributes:
        gates: what a cell's name adds to the layer's path → gate → (batch, time, units).
        outputs: of the last cell, (batch, time, units), by position.
        states: of each cell, each (batch, units).
        mask: (batch, time), False where a step was masked; None where no step was.
    """

    gates: Sequence[tuple[str, Mapping[str, Array]]]
    outputs: Array
    states: Sequence[tuple[Array, ...]]
    mask: Mask | None


def replay_layer(
    layer: Any, x: Array, begin: States, mask: Mask | None, cells: Cells, change: Change | None = None
) -> LayerReplay:
    """Replay a call from the layer's weights.

    A layer of half precision is replayed in float32, from weights, inputs and states that are rounded as it sees them.

    Args:
        layer: a Keras recurrent layer for which `why_not_replayed` has no reason.
        x: (batch, time, features).
        begin: the states to begin with, tensors in Keras's order; zeros where None.
        mask: (batch, time), False where a step is masked; None where no step is.
        cells: the cells that can be replayed.
        change: is given the weights of each cell, and returns those to replay it with; None: the weights as they are.

    Raises:
        ValueError: there are more states than the layer has.
    """
    given = None if begin is None else [numpy_of(state, copy=True) for state in keras.tree.flatten(list(begin))]
    gates: list[tuple[str, Mapping[str, Array]]] = []
    states: list[tuple[Array, ...]] = []
    for suffix, cell in inner_cells(layer):
        entry = cell_of(cell, cells)
        if entry is None or entry.from_keras is None:
            raise ValueError(f"{type(cell).__name__} is no cell that can be replayed")
        first = None
        if given is not None:
            first = tuple(_seen(state, cell.compute_dtype) for state in given[: entry.states])
            del given[: entry.states]
        weights = entry.from_keras(partial(_read, cell))
        weights = weights if change is None else change(weights)
        replay: Replay = entry.replay(_seen(x, cell.compute_dtype), weights, first, mask, layer.go_backwards)
        gates.append((suffix, replay.gates))
        states.append(replay.states)
        x = replay.outputs
    if given:
        raise ValueError(f"it is given {len(given)} more states than it has")
    return LayerReplay(gates, x, states, mask)


def as_mask(mask: Any, shape: tuple[int, ...]) -> Mask | None:
    """Return Keras's mask of a batch, (batch, time); None where it masks no step."""
    first = next(iter(keras.tree.flatten(mask)), None)
    if first is None:
        return None
    steps: Mask = np.asarray(keras.ops.convert_to_numpy(first)).astype(bool).reshape(shape)
    return None if steps.all() else steps


def begins_with(layer: Any, initial_state: Any, batch: int) -> States:
    """Return the states that a call begins with, in Keras's order and form; None where they are zeros.

    Raises:
        ConfigError: the layer is stateful, and built for another number of sequences.
    """
    if initial_state is None and layer.stateful and layer.states is not None:
        initial_state = keras.tree.map_structure(lambda state: state.value, layer.states)
        built_for = keras.tree.flatten(initial_state)[0].shape[0]
        if built_for != batch:
            raise ConfigError(
                f"the probe holds {batch} sequences, but the stateful layer {name_of(layer)!r} is built for "
                f"{built_for}; give a probe of that many"
            )
    if initial_state is None:
        return None
    return list(initial_state) if keras.tree.is_nested(initial_state) else [initial_state]


def keras_output(layer: Any, replay: LayerReplay, begin: States) -> Any:
    """Return a replay's output in the order, type and form in which the layer's own call gives it."""
    mask, backwards = replay.mask, layer.go_backwards
    shown = None
    if mask is not None:  # before the first step that is not masked Keras's output is zero, whatever the state is
        run = mask[:, ::-1] if backwards else mask
        shown = (run if layer.zero_output_for_mask else np.logical_or.accumulate(run, axis=1))[:, :, None]
    if layer.return_sequences:
        output = replay.outputs[:, ::-1] if backwards else replay.outputs
    else:
        output = replay.states[-1][0]
        shown = None if shown is None else shown[:, -1]
    tensor = _tensor(layer, output if shown is None else np.where(shown, output, 0))
    if not layer.return_state:
        return tensor
    states: list[Any] = [[_tensor(layer, state) for state in of_cell] for of_cell in replay.states]
    if not isinstance(layer.cell, keras.layers.StackedRNNCells):
        return tensor, *states[0]
    if begin is not None:
        states = [s if keras.tree.is_nested(given) else s[0] for s, given in zip(states, begin, strict=True)]
    return tensor, *states


def move_on(layer: Any, replay: LayerReplay) -> None:
    """Keep the final states in a stateful layer, as its own call does."""
    values = [state for of_cell in replay.states for state in of_cell]
    for variable, value in zip(keras.tree.flatten(layer.states), values, strict=True):
        variable.assign(_tensor(layer, value))


def compare(
    layer: Any, own_call: Callable[..., Any], sequences: Any, begin: States, mask: Mask | None, cells: Cells
) -> tuple[float | None, bool]:
    """Compare with the layer's own call, on the first steps of the first sequences: that call is slow.

    Returns:
        How far the replay is from it, relative to the largest output or 1, None where there was nothing finite to
        compare; and whether the replay may be recorded.
    """
    count = sequences.shape[0] if layer.stateful else min(sequences.shape[0], _VERIFIED)
    part = sequences[:count, :_VERIFIED]
    begin = None if begin is None else keras.tree.map_structure(lambda state: state[:count], begin)
    mask = None if mask is None else mask[:count, :_VERIFIED]
    x = keras.ops.convert_to_numpy(part)
    states = None if begin is None else keras.tree.map_structure(partial(numpy_of, copy=True), begin)

    def outputs(rows: Any, change: Change | None = None) -> list[Array]:
        some = None if states is None else keras.tree.map_structure(lambda state: state[rows], states)
        replay = replay_layer(layer, x[rows], some, None if mask is None else mask[rows], cells, change)
        return _arrays(keras_output(layer, replay, some))

    ours = outputs(slice(None))
    kept = [(state, keras.ops.copy(state.value)) for state in keras.tree.flatten(layer.states or ())]
    own_mask = None if mask is None else keras.ops.convert_to_tensor(mask)
    theirs = own_call(part, initial_state=begin, mask=own_mask, training=False)
    for state, value in kept:
        state.assign(value)
    types = [layer.compute_dtype, *(cell.compute_dtype for _, cell in inner_cells(layer))]
    precision = rounding.precision_of(types, any(map(_on_gpu, keras.tree.flatten(theirs))))
    return rounding.compare(ours, _arrays(theirs), precision, again=lambda change, rows: outputs(rows, change))


def _arrays(tensors: Any) -> list[Array]:
    return [np.asarray(keras.ops.convert_to_numpy(one)).astype(np.float64) for one in keras.tree.flatten(tensors)]


def _on_gpu(tensor: Any) -> bool:
    """Return whether a tensor of TensorFlow or torch lies on a GPU."""
    return bool(getattr(tensor, "is_cuda", False)) or "GPU" in str(getattr(tensor, "device", ""))


def _read(cell: Any, name: str) -> Any:
    """Return an attribute of a cell: weights as the cell sees them, an activation by its name."""
    value = getattr(cell, name, None)
    if isinstance(value, keras.Variable):
        # Past what Keras casts weights to just now: that is the layer's type, and a cell may have another.
        scope = get_stateless_scope()  # in which a forward may have assigned the weight
        written = None if scope is None else scope.get_current_value(value)
        present = value._value if written is None else written  # None: a model that was never called is being built
        return _seen(numpy_of(value.value if present is None else present, copy=True), cell.compute_dtype)
    return ACTIVATION_NAMES[value] if callable(value) else value


def _seen(array: Array, dtype: str) -> Array:
    """Return an array as a cell that computes in this type sees it, in single precision or double."""
    if dtype == "float64":
        return array.astype(np.float64, copy=False)
    if dtype not in ("float32", array.dtype.name):
        with np.errstate(over="ignore"):
            array = array.astype(dtype)
    return array.astype(np.float32, copy=False)


def _tensor(layer: Any, array: Array) -> Any:
    tensor = keras.ops.convert_to_tensor(np.ascontiguousarray(array))
    return keras.ops.cast(keras.ops.cast(tensor, layer.cell.compute_dtype), layer.compute_dtype)
