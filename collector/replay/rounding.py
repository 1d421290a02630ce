"""Whether a replay is what its layer computed, but for rounding.

A layer and its replay add the same products in different orders, so their sums differ. The computed sum of n products
x·w is the exact sum for weights that are each changed by a relative γ_n = n·u / (1 − n·u) at most, u being the unit
roundoff (Higham 2002, "Accuracy and Stability of Numerical Algorithms", §3.1), and by about √n·u where roundings are
independent (Higham and Mary 2019, "A New Approach to Probabilistic Rounding Error Analysis"). So where a replay differs
by more than a fixed tolerance, it is run again with weights that are changed by that much. How far this moves an
element is how far rounding may move it: through all gates, layers and steps, whatever the sizes of inputs and weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from gatewatch.collector.arrays import Array

REPLAY_TOLERANCE: Final = 1e-4
"""A replay may differ by so much from its layer's own output, relative to the largest output or 1."""
ROUNDINGS: Final = 8
"""A layer of half precision, or on a GPU, rounds each result of each step, which the replay does not. It may differ by
so many epsilons of its largest output. Measured with Keras over sizes, weights and inputs from small to saturating, on
both backends: at most 3 where the replay is right; where two gates are exchanged, 1 (outputs near zero) to 2,000. With
torch, LSTMs of up to 256 units and 256 steps: 1.5."""
CHANGES: Final = 4
"""How many times larger than its rounding a weight is changed. Over 1 to 600 inputs, 4 to 512 units, 1 to 512 steps and
prices from 100 to a million, right replays differed by at most a tenth of what such changes move."""
SAMPLES: Final = 8
"""How many times a replay is run with changed weights; the largest move of each element counts."""
_EPSILON: Final = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
_TENSOR_FLOAT: Final = 2.0**-10
"""A GPU multiplies float32 as TensorFloat32, of float16's precision, unless it is set otherwise: layers of 5 units were
measured to differ by up to 4e-4 there."""

Change = Callable[[Any], Any]
"""The weights of a layer → the same, each changed a little."""
Again = Callable[[Change, Any], Sequence[Array]]
"""Replays some sequences with changed weights: the change, and the indices of the sequences → their outputs."""


class Precision(NamedTuple):
    """How exactly a layer computes: epsilons, 0 where they are no coarser than those of `sums`.

    Attributes:
        results: of the type that results are rounded to.
        products: of what the factors of a product are rounded to, both together.
        sums: of the type in which products are added.
    """

    results: float
    products: float
    sums: float

    def tolerance(self, largest: float) -> float:
        """Return how far an output may be from one whose largest value is given, whatever the sizes of its sums."""
        return REPLAY_TOLERANCE * max(1.0, largest) + ROUNDINGS * self.results * largest

    def change(self, weights: Any, generator: np.random.Generator) -> Any:
        """Return weights that are each changed, at random up or down, by some roundings of the sums that they are in.

        Args:
            weights: a dataclass or named tuple; its arrays of two dimensions have the terms of a sum in a column.
            generator: draws the signs.
        """
        named = isinstance(weights, tuple)
        names = weights._fields if named else [field.name for field in dataclasses.fields(weights)]
        arrays = {name: array for name in names if isinstance(array := getattr(weights, name), np.ndarray)}
        terms = sum(len(array) for array in arrays.values() if array.ndim == 2)
        relative = CHANGES * max(self.products, math.sqrt(terms) * self.sums)
        changed = {name: _changed(array, relative, generator) for name, array in arrays.items()}
        return weights._replace(**changed) if named else dataclasses.replace(weights, **changed)


def precision_of(types: Iterable[str], on_gpu: bool) -> Precision:
    """Return the precision of a layer.

    Args:
        types: what it computes in, by name, such as float32.
        on_gpu: whether on a GPU.
    """
    names = set(types)
    results = products = max(_EPSILON.get(name, 0.0) for name in names)
    if on_gpu and "float64" not in names:
        results, products = max(results, _TENSOR_FLOAT), max(products, 2 * _TENSOR_FLOAT)
    return Precision(results, products, float(np.finfo(np.float64 if names == {"float64"} else np.float32).eps))


def compare(
    ours: Sequence[Array], theirs: Sequence[Array], precision: Precision, again: Again
) -> tuple[float | None, bool]:
    """Compare the outputs of a replay with its layer's own.

    What is not finite in both is no difference; in one of them only, it is an infinite one.

    Args:
        ours, theirs: arrays of the same shapes, with the sequences along the first axis.
        precision: of the layer.
        again: replays some of the sequences with changed weights.

    Returns:
        The largest difference, relative to the largest value of its array or 1, None where nothing is finite; and
        whether roundings explain it.
    """
    allowed: list[float] = []
    errors: list[float] = []
    unexplained = np.zeros(len(ours[0]), bool)
    for a, b in zip(ours, theirs, strict=True):
        finite = np.isfinite(b)
        largest = float(np.abs(b).max(initial=0, where=finite))
        allowed.append(precision.tolerance(largest))
        apart = _apart(a, b)
        if finite.any() or apart.any():
            errors.append(float(apart.max() / max(1.0, largest)))
        unexplained |= (apart > allowed[-1]).reshape(len(apart), -1).any(axis=1)
    (rows,) = unexplained.nonzero()
    return max(errors, default=None), not len(rows) or _explained(ours, theirs, allowed, precision, again, rows)


def _explained(
    ours: Sequence[Array],
    theirs: Sequence[Array],
    allowed: Sequence[float],
    precision: Precision,
    again: Again,
    rows: Any,
) -> bool:
    """Return whether these sequences of a replay differ from the layer's own by no more than roundings move them."""
    ours, theirs = [a[rows] for a in ours], [b[rows] for b in theirs]
    generator = np.random.default_rng(0)
    moved = [np.zeros_like(a) for a in ours]
    for _ in range(SAMPLES):
        samples = again(lambda weights: precision.change(weights, generator), rows)
        for most, sample, a in zip(moved, samples, ours, strict=True):
            np.maximum(most, _apart(sample, a), out=most)
    parts = zip(ours, theirs, allowed, moved, strict=True)
    return all(bool((_apart(a, b) <= limit + most).all()) for a, b, limit, most in parts)


def _changed(array: Array, relative: float, generator: np.random.Generator) -> Array:
    up_or_down = generator.integers(0, 2, array.shape, np.int8) * 2 - 1
    return (array * (1 + relative * up_or_down)).astype(array.dtype)


def _apart(a: Array, b: Array) -> Array:
    """Return the distance of each element: zero where neither is finite, infinite where one of them is not."""
    ours, theirs = np.isfinite(a), np.isfinite(b)
    with np.errstate(over="ignore", invalid="ignore"):  # a network may explode
        apart: Array = np.abs(a - b)
    apart[~ours & ~theirs] = 0.0
    apart[ours != theirs] = np.inf
    return apart
