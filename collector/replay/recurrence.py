"""What the recurrences of all cells share: the form of a replay, and the steps around a cell's own equations.

Notation: B sequences of T steps and F features, U units, P units after a projection. The arrays of a replay are views
of memory that is laid out by time, since a step reads and writes one contiguous block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gatewatch.collector.arrays import Array, Mask

ReadAttribute = Callable[[str], Any]
"""Attribute of a framework's layer → its value: weights as arrays, activations by name; None where it has none."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a cell; the columns of each array are those of its gates, side by side.

    Attributes:
        kernel: (F, columns).
        recurrent: (U, columns); (P, columns) with a projection.
        bias: (columns,), or None.
        activation: a name in `ACTIVATIONS`, of what a step adds to the state.
        recurrent_activation: of the gates.
    """

    kernel: Array
    recurrent: Array
    bias: Array | None
    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"


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


def project(x: Array, kernel: Array, bias: Array | None) -> Array:
    """Return the inputs' share of every pre-activation, (T, B, columns)."""
    batch, length, features = x.shape
    by_time = np.ascontiguousarray(x.transpose(1, 0, 2), dtype=kernel.dtype).reshape(length * batch, features)
    z = by_time @ kernel
    if bias is not None:
        z += bias
    return z.reshape(length, batch, kernel.shape[1])


Step = Callable[[Array, Sequence[Array], Sequence[Array]], None]
"""One step: the pre-activations (B, columns), which become the gates; the old states; room for the new ones."""


def recur(
    z: Array, units: Sequence[int], states: Sequence[Array] | None, mask: Mask | None, reverse: bool, step: Step
) -> tuple[list[Array], tuple[Array, ...]]:
    """Run a cell over a batch; a masked step leaves the states as they were.

    Args:
        z: the inputs' share of the pre-activations, (T, B, columns); the gates afterwards.
        units: of each state.
        states: to begin with, each (B, its units); zeros where None.
        mask: (B, T), False where a step is to be skipped.
        reverse: whether the cell reads the sequence from its end.
        step: writes the gates over its pre-activations, and the new states where there is room for them.

    Returns:
        Every state over time, each (T, B, units), and the final states, each (B, units).
    """
    length, batch = z.shape[:2]
    over_time = [np.empty((length, batch, n), z.dtype) for n in units]
    if states is None:
        states = [np.zeros((batch, n), z.dtype) for n in units]
    old = [np.broadcast_to(np.asarray(state, z.dtype), (batch, n)) for state, n in zip(states, units, strict=True)]
    for t in reversed(range(length)) if reverse else range(length):
        new = [state[t] for state in over_time]
        step(z[t], old, new)
        if mask is not None and (masked := ~mask[:, t]).any():
            for after, before in zip(new, old, strict=True):
                after[masked] = before[masked]
        old = new
    return over_time, tuple(old)


def finish(gates: Mapping[str, Array], outputs: Array, states: tuple[Array, ...], mask: Mask | None) -> Replay:
    """Return the replay of arrays that are laid out by time, (T, B, …), with NaN at masked steps."""
    by_batch = {name: array.transpose(1, 0, 2) for name, array in gates.items()}
    outputs = outputs.transpose(1, 0, 2)
    if mask is not None and not mask.all():
        masked = ~mask
        outputs = outputs.copy()  # "hidden" is the same memory, and gets NaN below
        states = tuple(state.copy() for state in states)
        for array in by_batch.values():
            array[masked] = np.nan
    return Replay(by_batch, outputs, states)
