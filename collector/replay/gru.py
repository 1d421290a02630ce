"""The GRU: its weights, as each framework lays them out, and its recurrence with every gate kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gatewatch.collector.arrays import Array, Mask
from gatewatch.collector.replay.activations import ACTIVATIONS
from gatewatch.collector.replay.recurrence import ReadAttribute, Replay, Weights, finish, project, recur


@dataclass(frozen=True, slots=True)
class GRUWeights(Weights):
    """The weights of a GRU; the columns of each are in the order update, reset, candidate.

    The bias may also be (2, 3U), with one row for the input and one for the recurrence.

    Attributes:
        reset_after: whether the reset gate is applied after the recurrent product (as cuDNN and torch do).
    """

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
    gate, squash = ACTIVATIONS[weights.recurrent_activation], ACTIVATIONS[weights.activation]

    def step(a: Array, old: Sequence[Array], new: Sequence[Array]) -> None:
        (h,), (new_h,) = old, new
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
        update = a[:, :units]
        np.multiply(update, h, out=new_h)
        new_h += (1 - update) * a[:, 2 * units :]

    (outputs,), final = recur(z, (units,), states, mask, reverse, step)
    update, reset, candidate = np.split(z, 3, axis=2)
    gates = {"update": update, "reset": reset, "candidate": candidate, "hidden": outputs}
    return finish(gates, outputs, final, mask)


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
