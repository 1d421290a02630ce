"""The GRU: its weights, as each framework lays them out, and its recurrence with every gate kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gatewatch.collector.replay.activations import ACTIVATIONS
from gatewatch.collector.replay.recurrence import (
    Array,
    Mask,
    ReadAttribute,
    Replay,
    begin,
    carry,
    empty_by_time,
    finish,
    project,
    steps,
)


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
    z = project(x, weights.kernel, bias)
    length, batch = z.shape[:2]
    outputs = empty_by_time(z, units)
    (h,) = begin(states, batch, (units,), z.dtype)
    gate, squash = ACTIVATIONS[weights.recurrent_activation], ACTIVATIONS[weights.activation]
    for t in steps(length, reverse):
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
            carry(mask[:, t], (new_h, h))
        h = new_h
    gates = {
        "update": z[:, :, :units],
        "reset": z[:, :, units : 2 * units],
        "candidate": z[:, :, 2 * units :],
        "hidden": outputs,
    }
    return finish(gates, outputs, (h,), mask)


def gru_from_keras(read: ReadAttribute) -> GRUWeights:
    """Return the weights of a `keras.layers.GRUCell`."""
    activations = read("activation"), read("recurrent_activation")
    return GRUWeights(read("kernel"), read("recurrent_kernel"), read("bias"), *activations, read("reset_after"))


def gru_from_torch(read: ReadAttribute) -> GRUWeights:
    """Return the weights of one layer of a `torch.nn.GRU`, or of a `torch.nn.GRUCell`, in our order of gates."""
    kernel, recurrent, bias = read("weight_ih").T, read("weight_hh").T, read("bias_ih")
    units = recurrent.shape[0]
    order = np.r_[units : 2 * units, :units, 2 * units : 3 * units]
    biases = None if bias is None else np.stack([bias, read("bias_hh")])[:, order]
    return GRUWeights(kernel[:, order], recurrent[:, order], biases)
