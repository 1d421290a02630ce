"""What the recurrences of all cells share: the form of a replay, and the steps around a cell's own equations.

Notation: B sequences of T steps and F features, U units, P units after a projection. The arrays of a replay are views
of memory that is laid out by time, since a step reads and writes one contiguous block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

ReadAttribute = Callable[[str], Any]
"""Attribute of a framework's layer → its value: weights as arrays, activations by name; None where it has none."""


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


def empty_by_time(z: Array, units: int) -> Array:
    """Return room for a value of each step, sequence and unit, (T, B, units), of the type of `z`, (T, B, …)."""
    return np.empty((*z.shape[:2], units), z.dtype)


def begin(states: tuple[Array, ...] | None, batch: int, units: tuple[int, ...], dtype: np.dtype[Any]) -> list[Array]:
    """Return the states to begin with, each (B, its units); zeros where None."""
    if states is None:
        return [np.zeros((batch, n), dtype) for n in units]
    return [np.broadcast_to(np.asarray(state, dtype), (batch, n)) for state, n in zip(states, units, strict=True)]


def steps(length: int, reverse: bool) -> range:
    """Return the positions in the order in which a cell reads them."""
    return range(length - 1, -1, -1) if reverse else range(length)


def carry(keep: Mask, *pairs: tuple[Array, Array]) -> None:
    """Put the old state back where a step is masked."""
    masked = ~keep
    if masked.any():
        for new, old in pairs:
            new[masked] = old[masked]


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
