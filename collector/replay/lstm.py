"""The LSTM: its weights, as each framework lays them out, and its recurrence with every gate kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gatewatch.collector.arrays import Array, Mask
from gatewatch.collector.replay.activations import ACTIVATIONS
from gatewatch.collector.replay.recurrence import ReadAttribute, Replay, Weights, finish, project, recur


@dataclass(frozen=True, slots=True)
class LSTMWeights(Weights):
    """The weights of an LSTM; the columns of each are in the order input, forget, candidate, output.

    Attributes:
        projection: (U, P), from a step's output to its hidden state, or None.
    """

    projection: Array | None = None


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
    z = project(x, weights.kernel[:, order], None if weights.bias is None else weights.bias[order])
    gate, squash = ACTIVATIONS[weights.recurrent_activation], ACTIVATIONS[weights.activation]
    product = np.empty(z.shape[1:], z.dtype)

    def step(a: Array, old: Sequence[Array], new: Sequence[Array]) -> None:
        (h, c), (new_h, new_c) = old, new
        a += np.matmul(h, recurrent, out=product)
        a[:, : 3 * units] = gate(a[:, : 3 * units])
        a[:, 3 * units :] = squash(a[:, 3 * units :])
        i, f, o, g = (a[:, k * units : (k + 1) * units] for k in range(4))
        np.multiply(f, c, out=new_c)
        new_c += i * g
        if projection is None:
            np.multiply(o, squash(new_c), out=new_h)
        else:
            np.matmul(o * squash(new_c), projection, out=new_h)

    (outputs, cells), final = recur(z, (hidden, units), states, mask, reverse, step)
    i, f, o, g = np.split(z, 4, axis=2)
    gates = {"input": i, "forget": f, "candidate": g, "cell": cells, "output": o, "hidden": outputs}
    return finish(gates, outputs, final, mask)


def lstm_from_keras(read: ReadAttribute) -> LSTMWeights:
    """Return the weights of a `keras.layers.LSTMCell`."""
    activations = read("activation"), read("recurrent_activation")
    return LSTMWeights(read("kernel"), read("recurrent_kernel"), read("bias"), *activations)


def lstm_from_torch(read: ReadAttribute) -> LSTMWeights:
    """Return the weights of one layer of a `torch.nn.LSTM`, or of a `torch.nn.LSTMCell`."""
    bias, projection = read("bias_ih"), read("weight_hr")
    return LSTMWeights(
        read("weight_ih").T,
        read("weight_hh").T,
        None if bias is None else bias + read("bias_hh"),
        projection=None if projection is None else projection.T,
    )
