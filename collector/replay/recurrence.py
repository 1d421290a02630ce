"""The recurrences of LSTM and GRU, step by step, with every gate kept.

Notation: B sequences of T steps and F features, U units, P units after a projection. The arrays of a replay are views
of memory that is laid out by time, since a step reads and writes one contiguous block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.replay.activations import ACTIVATIONS

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LSTMWeights:
    """The weights of an LSTM; the columns of each are in the order input, forget, candidate, output.

    Attributes:
        kernel: (F, 4U).
        recurrent: (U, 4U); (P, 4U) with a projection.
        bias: (4U,), or None.
        activation: of candidate and cell, a name in `ACTIVATIONS`.
        recurrent_activation: of the three gates.
        projection: (U, P), from a step's output to its hidden state, or None.
    """

    kernel: Array
    recurrent: Array
    bias: Array | None
    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"
    projection: Array | None = None


@dataclass(frozen=True, slots=True)
class GRUWeights:
    """The weights of a GRU; the columns of each are in the order update, reset, candidate.

    Attributes:
        kernel: (F, 3U).
        recurrent: (U, 3U).
        bias: (3U,), or (2, 3U) with one row for the input and one for the recurrence, or None.
        activation: of the candidate, a name in `ACTIVATIONS`.
        recurrent_activation: of the two gates.
        reset_after: whether the reset gate is applied after the recurrent product (as cuDNN and torch do).
    """

    kernel: Array
    recurrent: Array
    bias: Array | None
    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"
    reset_after: bool = True


class Replay(NamedTuple):
    """What one layer did with one batch.

    Attributes:
        gates: gate → (B, T, U). Position t is the t-th element of the input, whichever way the cell ran. A masked
            step is NaN.
        outputs: (B, T, U), the hidden state by position; over a masked step it is carried.
        states: the final states, each (B, U): hidden and cell of an LSTM, hidden of a GRU.

    With a projection the hidden state has P units, here and in `gates`.
    """

    gates: Mapping[str, Array]
    outputs: Array
    states: tuple[Array, ...]


@np.errstate(over="ignore", invalid="ignore", under="ignore")  # an exploded network is shown as it is
def replay_lstm(
    x: Array,
    weights: LSTMWeights,
    states: tuple[Array, ...] | None = None,
    mask: Mask | None = None,
    reverse: bool = False,
) -> Replay:
    """Run an LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000) over a batch.

    The projection of the hidden state is that of Sak et al. 2014.

    Args:
        x: the inputs, (B, T, F).
        weights: of the layer.
        states: the hidden and the cell state to begin with, each (B, U), the hidden one (B, P) with a projection;
            zeros where None.
        mask: (B, T), False where a step is to be skipped.
        reverse: whether the cell reads the sequence from its end.
    """
    projection = weights.projection
    units, hidden = weights.recurrent.shape[1] // 4, weights.recurrent.shape[0]
    # Columns in the order input, forget, output, candidate, so that all sigmoids of a step are one block.
    order = np.r_[0 : 2 * units, 3 * units : 4 * units, 2 * units : 3 * units]
    recurrent = np.ascontiguousarray(weights.recurrent[:, order])
    z = _project(x, weights.kernel[:, order], None if weights.bias is None else weights.bias[order])
    length, batch = z.shape[:2]
    cells, outputs = _empty(z, units), _empty(z, hidden)
    h, c = _begin(states, batch, (hidden, units), z.dtype)
    gate, squash = ACTIVATIONS[weights.recurrent_activation], ACTIVATIONS[weights.activation]
    product = np.empty((batch, 4 * units), z.dtype)
    for t in _steps(length, reverse):
        a = z[t]
        a += np.matmul(h, recurrent, out=product)
        a[:, : 3 * units] = gate(a[:, : 3 * units])
        a[:, 3 * units :] = squash(a[:, 3 * units :])
        i, f, o, g = (a[:, k * units : (k + 1) * units] for k in range(4))
        new_c = np.multiply(f, c, out=cells[t])
        new_c += i * g
        if projection is None:
            new_h = np.multiply(o, squash(new_c), out=outputs[t])
        else:
            new_h = np.matmul(o * squash(new_c), projection, out=outputs[t])
        if mask is not None:
            _carry(mask[:, t], (new_h, h), (new_c, c))
        h, c = new_h, new_c
    gates = {
        "input": z[:, :, :units],
        "forget": z[:, :, units : 2 * units],
        "candidate": z[:, :, 3 * units :],
        "cell": cells,
        "output": z[:, :, 2 * units : 3 * units],
        "hidden": outputs,
    }
    return _replay(gates, outputs, (h, c), mask)


@np.errstate(over="ignore", invalid="ignore", under="ignore")  # an exploded network is shown as it is
def replay_gru(
    x: Array,
    weights: GRUWeights,
    states: tuple[Array, ...] | None = None,
    mask: Mask | None = None,
    reverse: bool = False,
) -> Replay:
    """Run a GRU (Cho et al. 2014) over a batch; the update gate keeps the old state.

    Args:
        x: the inputs, (B, T, F).
        weights: of the layer.
        states: the hidden state to begin with, (B, U) in a tuple; zeros where None.
        mask: (B, T), False where a step is to be skipped.
        reverse: whether the cell reads the sequence from its end.
    """
    units = weights.recurrent.shape[0]
    recurrent = np.ascontiguousarray(weights.recurrent)
    bias, recurrent_bias = weights.bias, None
    if bias is not None and bias.ndim == 2:
        bias, recurrent_bias = bias
    z = _project(x, weights.kernel, bias)
    length, batch = z.shape[:2]
    outputs = _empty(z, units)
    (h,) = _begin(states, batch, (units,), z.dtype)
    gate, squash = ACTIVATIONS[weights.recurrent_activation], ACTIVATIONS[weights.activation]
    for t in _steps(length, reverse):
        a = z[t]
        if weights.reset_after:
            inner = h @ recurrent
            if recurrent_bias is not None:
                inner += recurrent_bias
            a[:, : 2 * units] = gate(a[:, : 2 * units] + inner[:, : 2 * units])
            candidate = a[:, units : 2 * units] * inner[:, 2 * units :]
        else:
            a[:, : 2 * units] = gate(a[:, : 2 * units] + h @ recurrent[:, : 2 * units])
            candidate = (a[:, units : 2 * units] * h) @ recurrent[:, 2 * units :]
        a[:, 2 * units :] = squash(a[:, 2 * units :] + candidate)
        update, new = a[:, :units], a[:, 2 * units :]
        new_h = np.multiply(update, h, out=outputs[t])
        new_h += (1 - update) * new
        if mask is not None:
            _carry(mask[:, t], (new_h, h))
        h = new_h
    gates = {
        "update": z[:, :, :units],
        "reset": z[:, :, units : 2 * units],
        "candidate": z[:, :, 2 * units :],
        "hidden": outputs,
    }
    return _replay(gates, outputs, (h,), mask)


def _project(x: Array, kernel: Array, bias: Array | None) -> Array:
    """The inputs' share of every pre-activation, (T, B, columns)."""
    batch, length, features = x.shape
    by_time = np.ascontiguousarray(x.transpose(1, 0, 2), dtype=kernel.dtype).reshape(length * batch, features)
    z = by_time @ kernel
    if bias is not None:
        z += bias
    return z.reshape(length, batch, kernel.shape[1])


def _empty(z: Array, units: int) -> Array:
    return np.empty((*z.shape[:2], units), z.dtype)


def _begin(states: tuple[Array, ...] | None, batch: int, units: tuple[int, ...], dtype: np.dtype[Any]) -> list[Array]:
    if states is None:
        return [np.zeros((batch, n), dtype) for n in units]
    return [np.broadcast_to(np.asarray(state, dtype), (batch, n)) for state, n in zip(states, units, strict=True)]


def _steps(length: int, reverse: bool) -> range:
    return range(length - 1, -1, -1) if reverse else range(length)


def _carry(keep: Mask, *pairs: tuple[Array, Array]) -> None:
    """Put the old state back where a step is masked."""
    masked = ~keep
    if masked.any():
        for new, old in pairs:
            new[masked] = old[masked]


def _replay(gates: Mapping[str, Array], outputs: Array, states: tuple[Array, ...], mask: Mask | None) -> Replay:
    by_batch = {name: array.transpose(1, 0, 2) for name, array in gates.items()}
    outputs = outputs.transpose(1, 0, 2)
    if mask is not None and not mask.all():
        masked = ~mask
        outputs = outputs.copy()  # "hidden" is the same memory, and gets NaN below
        states = tuple(state.copy() for state in states)
        for array in by_batch.values():
            array[masked] = np.nan
    return Replay(by_batch, outputs, states)
