"""What the recurrent layers of a Keras model do with a batch.

A layer is not rebuilt or rewired: the model is called on the batch as it is, and for the length of that call each
recurrent layer's `call` is the NumPy replay. So whatever Keras does between the layers (masks, initial states,
Bidirectional, nested and subclassed models) is done by Keras itself, and the slow part is not.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import keras
import numpy as np

from collector.errors import ConfigError
from collector.keras.layers import ACTIVATION_NAMES, recurrent_layers, why_not_replayed
from collector.replay import GRUWeights, LSTMWeights, Replay, replay_gru, replay_lstm
from collector.replay.cells import Array, Mask

REPLAY_TOLERANCE: Final = 1e-4
"""A replay that differs more from the layer's own output, relative to the largest output or 1, is not recorded."""

_VERIFIED: Final = 8
"""So many sequences and steps of a batch are compared."""

_LARGEST_STATE: Final = 65_536


@dataclass(slots=True)
class LayerGates:
    """What one layer did with a batch.

    Attributes:
        gates: gate → (batch, time, units); a masked step is NaN.
        mask: (batch, time), False where a step was masked; None where no step was.
        error: the largest difference between the replayed and the layer's own output, relative to the largest output
            or 1, where that was looked at.
    """

    gates: Mapping[str, Array]
    mask: Mask | None = None
    error: float | None = None


@dataclass(slots=True)
class Trace:
    """What the recurrent layers of a model did with a batch.

    Attributes:
        layers: path of the layer → its gates, in the order in which they ran.
        unreplayed: path of the layer → why it is not among `layers`.
        refused: why the batch is none for this model.
    """

    layers: dict[str, LayerGates] = field(default_factory=dict)
    unreplayed: dict[str, str] = field(default_factory=dict)
    refused: str | None = None


def trace(
    model: Any,
    x: Any,
    layers: Mapping[str, Any],
    *,
    states: Mapping[str, Any] | None = None,
    verify: bool = False,
) -> Trace:
    """Call the model on a batch, without training, and keep what its recurrent layers do.

    The model is left as it was, the states of its stateful layers too.

    Args:
        model: a built Keras model or layer.
        x: a batch as the model takes it.
        layers: path → layer, as `recurrent_layers` gives them; the others are left alone.
        states: path of a layer → the states it begins with, where the model gives it none.
        verify: also run each layer's own call on a part of the batch, and compare.
    """
    result = Trace()
    replayed = {}
    for path, layer in layers.items():
        if hasattr(layer, "get_gate_history"):
            continue
        if reason := why_not_replayed(layer):
            result.unreplayed[path] = reason
        else:
            replayed[path] = layer
    if replayed:
        with ExitStack() as stack:
            stack.enter_context(_state_kept(model))
            for path, layer in replayed.items():
                stack.enter_context(_intercepted(layer, path, result, (states or {}).get(path), verify))
            stack.enter_context(_framework_kept())
            try:
                model(x, training=False)
            except Exception:
                if result.refused is not None:  # without what Keras writes around it
                    raise ConfigError(result.refused) from None
                raise
    for path, layer in layers.items():
        if hasattr(layer, "get_gate_history"):
            try:
                result.layers[path] = _told(layer.get_gate_history())
            except Exception as error:
                result.unreplayed[path] = f"its get_gate_history() failed: {error}"
    for path in replayed.keys() - result.layers.keys() - result.unreplayed.keys():
        result.unreplayed[path] = "the model did not call it"
    return result


def _told(history: Mapping[str, Any]) -> LayerGates:
    gates = {}
    for gate, values in history.items():
        array = np.asarray(keras.ops.convert_to_numpy(values))
        array = array[None] if array.ndim == 2 else array
        if array.ndim != 3 or array.size == 0 or array.dtype.kind not in "fiu":
            raise ValueError(f"{gate!r} has shape {array.shape} and type {array.dtype}, not (batch, time, units)")
        gates[str(gate)] = array if array.dtype.kind == "f" else array.astype(np.float32)
    if not gates:
        raise ValueError("it gave no gates")
    return LayerGates(gates)


@contextmanager
def _intercepted(layer: Any, path: str, result: Trace, states: Any, verify: bool) -> Iterator[None]:
    own_call = layer.call
    thread = threading.get_ident()

    def call(sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        def own() -> Any:
            return own_call(sequences, initial_state=initial_state, mask=mask, training=training)

        if threading.get_ident() != thread:  # an actor beside the learner, for whom nothing has changed
            return own()
        if training and (layer.cell.dropout or layer.cell.recurrent_dropout):
            result.unreplayed[path] = "its dropout is always in play"
            return own()
        try:
            x = keras.ops.convert_to_numpy(sequences)
            numpy_mask = None if mask is None else _numpy_mask(mask, x.shape[:2])
            begin = _begin(layer, states if initial_state is None else initial_state, len(x))
            replay = _replay(layer, x, begin, numpy_mask)
            error = _replay_error(layer, own_call, x, begin, numpy_mask) if verify else None
        except ConfigError as refused:
            result.refused = str(refused)
            raise
        except Exception as failure:
            result.unreplayed[path] = f"its replay failed: {type(failure).__name__}: {failure}"
            return own()
        if error is not None and not error <= REPLAY_TOLERANCE:
            result.unreplayed[path] = f"its replay differs from its own output by {error:.2g}"
            return own()
        name, calls = path, 1
        while name in result.layers:
            calls += 1
            name = f"{path}#{calls}"
        result.layers[name] = LayerGates(replay.gates, numpy_mask, error)
        return _keras_output(layer, replay, numpy_mask)

    # Through the instance's dictionary, past the tracking of attributes; Bidirectional's fused path is kept out too.
    changed = {"call": call} | ({"use_cudnn": False} if hasattr(layer, "use_cudnn") else {})
    before = {name: vars(layer)[name] for name in changed if name in vars(layer)}
    vars(layer).update(changed)
    try:
        yield
    finally:
        for name in changed:
            del vars(layer)[name]
        vars(layer).update(before)


def _numpy_mask(mask: Any, shape: tuple[int, ...]) -> Mask | None:
    array: Mask = np.asarray(keras.ops.convert_to_numpy(mask)).astype(bool).reshape(shape)
    return None if array.all() else array


def _begin(layer: Any, initial_state: Any, batch: int) -> tuple[Array, ...] | None:
    if initial_state is None and layer.stateful and layer.states is not None:
        initial_state = [state.value for state in layer.states]
        if initial_state[0].shape[0] != batch:
            raise ConfigError(
                f"the probe holds {batch} sequences, but the stateful layer {layer.name!r} is built for "
                f"{initial_state[0].shape[0]}; give a probe of that many"
            )
    if initial_state is None:
        return None
    return tuple(keras.ops.convert_to_numpy(state) for state in keras.tree.flatten(initial_state))


def _replay(layer: Any, x: Array, states: tuple[Array, ...] | None, mask: Mask | None) -> Replay:
    cell = layer.cell
    kernel, recurrent = (keras.ops.convert_to_numpy(weight) for weight in (cell.kernel, cell.recurrent_kernel))
    bias = keras.ops.convert_to_numpy(cell.bias) if cell.use_bias else None
    activation, gate = ACTIVATION_NAMES[cell.activation], ACTIVATION_NAMES[cell.recurrent_activation]
    if isinstance(cell, keras.layers.LSTMCell):
        lstm = LSTMWeights(kernel, recurrent, bias, activation, gate)
        return replay_lstm(x, lstm, states, mask, layer.go_backwards)
    gru = GRUWeights(kernel, recurrent, bias, activation, gate, cell.reset_after)
    return replay_gru(x, gru, states, mask, layer.go_backwards)


def _keras_output(layer: Any, replay: Replay, mask: Mask | None) -> Any:
    """The replay's output in the order and form in which the layer's own call gives it."""
    if layer.return_sequences:
        output = replay.outputs
        if mask is not None and layer.zero_output_for_mask:
            output = np.where(mask[:, :, None], output, 0)
        if layer.go_backwards:
            output = output[:, ::-1]
    else:
        output = replay.states[0]
        if mask is not None and layer.zero_output_for_mask:
            output = np.where(mask[:, 0 if layer.go_backwards else -1, None], output, 0)
    tensors = [keras.ops.convert_to_tensor(np.ascontiguousarray(array)) for array in (output, *replay.states)]
    return tuple(tensors) if layer.return_state else tensors[0]


def _replay_error(layer: Any, own_call: Any, x: Array, begin: tuple[Array, ...] | None, mask: Mask | None) -> float:
    """How far a replay is from the layer's own call, on the first steps of the first sequences: that call is slow."""
    rows = len(x) if layer.stateful else min(len(x), _VERIFIED)
    x = x[:rows, :_VERIFIED]
    mask = None if mask is None else mask[:rows, :_VERIFIED]
    begin = None if begin is None else tuple(state[:rows] for state in begin)
    ours = _keras_output(layer, _replay(layer, x, begin, mask), mask)
    theirs = own_call(
        keras.ops.convert_to_tensor(x),
        initial_state=None if begin is None else [keras.ops.convert_to_tensor(state) for state in begin],
        mask=None if mask is None else keras.ops.convert_to_tensor(mask),
        training=False,
    )
    return _difference(ours, theirs)


def _difference(ours: Any, theirs: Any) -> float:
    worst = 0.0
    for a, b in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        mine, own = np.asarray(keras.ops.convert_to_numpy(a)), np.asarray(keras.ops.convert_to_numpy(b))
        both = np.isfinite(mine) & np.isfinite(own)
        if (np.isfinite(mine) != np.isfinite(own)).any():
            return float("inf")
        if both.any():
            worst = max(worst, float(np.abs(mine - own)[both].max() / max(1.0, float(np.abs(own[both]).max()))))
    return worst


@contextmanager
def _state_kept(model: Any) -> Iterator[None]:
    """Put back what a call moves on besides its result: random seeds, recurrent states, counters of a layer's own.

    Keras draws dropout masks, and so moves their seeds, even where they are not applied.
    """
    stateful = [layer for layer in recurrent_layers(model).values() if getattr(layer, "stateful", False)]
    variables = [state for layer in stateful for state in layer.states or ()]
    # Frozen weights are not trainable either, and too large to copy at each capture; what a call counts is small.
    variables += [v for v in model.variables if not v.trainable and math.prod(v.shape) <= _LARGEST_STATE]
    before = [keras.ops.copy(variable.value) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


@contextmanager
def _framework_kept() -> Iterator[None]:
    """On torch: no gradients, and its own random state put back, from which Keras's dropout draws there."""
    if keras.backend.backend() != "torch":
        yield
        return
    import torch  # noqa: PLC0415 - only where Keras itself runs on it

    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch is typed in part
    devices = range(torch.cuda.device_count()) if started else ()
    with torch.random.fork_rng(devices), torch.no_grad():
        yield
