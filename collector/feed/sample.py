"""From what a model is given to the arrays that are looked at: nested, of any framework, of any shape."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.arrays import Array, Mask
from gatewatch.collector.feed.leaves import Leaf, iter_leaves
from gatewatch.collector.feed.measures import FeedSample

MOST_SEQUENCES: Final = 256
MOST_POSITIONS: Final = 256
MOST_FEATURES: Final = 512
MOST_VALUES: Final = 2**17
FEWEST: Final = 16
"""Of a batch that is larger than `MOST_VALUES`: so many sequences and positions are looked at, if there are."""
_MOST_TARGETS: Final = 64
_MOST_CLASSES: Final = 16


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of a batch.

    Attributes:
        sample: as much as is looked at, copied; None where there is nothing to look at.
        features: how many the batch has, of which some may be left out of the sample.
        left_out: the inputs that are not looked at, and why: a line each.
        size: how many sequences the batch has.
        rows: those of them that the sample has, in its order.
        read_targets: targets of the batch → those of the sample.
    """

    sample: FeedSample | None
    features: int = 0
    left_out: tuple[str, ...] = ()
    size: int = 0
    rows: NDArray[np.intp] = field(default_factory=lambda: np.arange(0), compare=False)
    read_targets: Callable[[Any], Array | None] = field(default=lambda targets: None, compare=False)

    def with_targets(self, targets: Any) -> Reading:
        """Return the same with other targets, where there are any."""
        if targets is None or self.sample is None:
            return self
        return replace(self, sample=replace(self.sample, targets=self.read_targets(targets)))


def read_feed(inputs: Any, targets: Any = None, *, time_major: bool = False) -> Reading:
    """Return a batch as the arrays that are looked at.

    Inputs are arrays or tensors of any framework, or lists, tuples and mappings of such. Those of numbers are put side
    by side as features: a tuple in its order, a mapping in the order of its sorted names. (B, T, ...) is B sequences of
    T positions, and what comes after is flattened; (B, F) is one position or, beside sequences, the same at each of
    theirs. Whole numbers of one or two dimensions are ids. Packed and ragged sequences have a mask.

    At most 256 sequences, their last 256 positions and 512 features are looked at, and of these 2¹⁷ values: of a
    larger batch fewer sequences, from 16 on fewer positions. Features are evenly spaced; sequences are a sample by
    random numbers of its own, the same one for each batch of that size.

    Args:
        inputs: of the model.
        targets: of the batch; of a sequence of targets the last position counts.
        time_major: whether the first dimension of sequences is time, and the second the batch.
    """
    leaves, left_out = iter_leaves(inputs)
    leaves = [leaf.batch_first() for leaf in leaves] if time_major else leaves
    numbers = [leaf for leaf in leaves if leaf.is_quantity] or leaves
    sizes = Counter(leaf.shape[0] for leaf in numbers)
    main = max(numbers, key=lambda leaf: (min(len(leaf.shape), 3), sizes[leaf.shape[0]]), default=None)
    if main is None or not math.prod(main.shape):
        return Reading(None, 0, tuple(left_out))
    size = main.shape[0]
    positions = main.shape[1] if len(main.shape) > 2 or (not main.is_quantity and len(main.shape) == 2) else 1
    fitting = [leaf for leaf in leaves if _fits(leaf, size, positions)]
    left_out += [
        f"{leaf.name} of shape {leaf.shape} beside {main.name} of shape {main.shape}"
        for leaf in leaves
        if leaf not in fitting
    ]
    features = sum(leaf.features for leaf in fitting if leaf.is_quantity)
    bounds = _Bounds.of(size, positions, features)
    mask = next((leaf.mask for leaf in fitting if leaf.mask is not None), None)
    cut = _Cut(bounds, mask)
    parts, first = [], 0
    for leaf in fitting:
        if leaf.is_quantity:
            columns = bounds.columns[(bounds.columns >= first) & (bounds.columns < first + leaf.features)] - first
            parts.append(cut.quantities(leaf, columns))
            first += leaf.features
    others = tuple(cut.ids(leaf) for leaf in fitting if not leaf.is_quantity)
    values = np.concatenate(parts, axis=2) if parts else np.empty((len(bounds.rows), bounds.positions, 0), np.float32)
    read_targets = partial(_targets, size=size, bounds=bounds, mask=mask, time_major=time_major)
    sample = FeedSample(values, cut.mask, None, others)
    reading = Reading(sample, features, tuple(left_out), size, bounds.rows, read_targets)
    return reading.with_targets(targets)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What is looked at of a batch.

    Attributes:
        rows: the sequences, in their order.
        length: how many positions there are.
        positions: how many of them, the last ones.
        columns: the features, of all inputs side by side.
    """

    rows: NDArray[np.intp]
    length: int
    positions: int
    columns: NDArray[np.intp]

    @classmethod
    def of(cls, size: int, length: int, features: int) -> _Bounds:
        columns, positions, rows = min(features, MOST_FEATURES), min(length, MOST_POSITIONS), min(size, MOST_SEQUENCES)
        rows = min(rows, max(FEWEST, MOST_VALUES // max(1, positions * columns)))
        positions = min(positions, max(FEWEST, MOST_VALUES // max(1, rows * columns)))
        chosen = np.arange(size)
        if rows < size:
            chosen = np.sort(np.random.default_rng(0).choice(size, rows, replace=False))
        return cls(chosen, length, positions, np.arange(columns) * features // max(1, columns))


class _Cut:
    """Cuts what is looked at out of arrays.

    Attributes:
        mask: (B, T) of what is looked at; None where nothing is padding.
    """

    def __init__(self, bounds: _Bounds, mask: Mask | None) -> None:
        self._bounds = bounds
        self._at: NDArray[np.intp] | None = None
        self.mask: Mask | None = None
        if mask is None:
            return
        mask = mask[bounds.rows]
        if bounds.positions < bounds.length:  # of each sequence its own last positions
            end = bounds.length - mask[:, ::-1].argmax(axis=1)
            at = np.maximum(end - bounds.positions, 0)[:, None] + np.arange(bounds.positions)
            self._at = at
            mask = np.take_along_axis(mask, at, axis=1)
        self.mask = None if mask.all() else mask

    def quantities(self, leaf: Leaf, columns: NDArray[np.intp]) -> Array:
        """Return (B, T, F) of an input, at these features of its own."""
        bounds = self._bounds
        values = leaf.rows(bounds.rows)
        values = values.reshape(len(values), -1, leaf.features)
        steps = values.shape[1]
        if steps == 1 < bounds.positions:
            values = np.broadcast_to(values, (len(values), bounds.positions, leaf.features))
        elif self._at is not None:
            values = np.take_along_axis(values, self._at[:, :, None], axis=1)
        else:
            values = values[:, steps - bounds.positions :]
        if len(columns) < leaf.features:
            values = values[:, :, columns]
        return values.astype(values.dtype if values.dtype in (np.float32, np.float64) else _float_for(values.dtype))

    def ids(self, leaf: Leaf) -> NDArray[Any]:
        """Return a copy of what tells sequences apart."""
        values = leaf.rows(self._bounds.rows)
        return np.array(values[:, -self._bounds.positions :] if values.ndim > 1 else values)


def _float_for(kind: np.dtype[Any]) -> type[np.floating[Any]]:
    return np.float32 if kind in (np.float16, np.uint8, np.int8, np.bool_) else np.float64


def _fits(leaf: Leaf, size: int, positions: int) -> bool:
    if leaf.shape[0] != size:
        return False
    return not leaf.is_quantity or len(leaf.shape) < 3 or leaf.shape[1] in (1, positions)


def _targets(targets: Any, *, size: int, bounds: _Bounds, mask: Mask | None, time_major: bool) -> Array | None:
    """Return (B, K) of the targets that fit the batch; None where there are none."""
    length = bounds.length
    columns: list[Array] = []
    for given in iter_leaves(targets)[0]:
        leaf = given.swapped() if time_major and given.shape[:2] == (length, size) else given
        if leaf.shape[0] != size:
            continue
        values = leaf.rows(bounds.rows)
        if values.ndim > 1 and values.shape[1] == length > 1:
            last = np.full(len(values), length - 1)
            if mask is not None:
                last = length - 1 - mask[bounds.rows][:, ::-1].argmax(axis=1)
            values = values[np.arange(len(values)), last]
        values = values.reshape(len(values), -1)[:, :_MOST_TARGETS]
        columns.append(values.astype(np.float64))
        if values.dtype.kind in "iu" and values.shape[1] == 1:
            columns += _indicators(values)
    return np.concatenate(columns, axis=1) if columns else None


def _indicators(classes: NDArray[Any]) -> Sequence[Array]:
    """Return a column of 0 and 1 for each class of (B, 1), where these are more than two and few."""
    kinds = np.unique(classes)
    return [(classes == kinds).astype(np.float64)] if 2 < len(kinds) <= _MOST_CLASSES else []
