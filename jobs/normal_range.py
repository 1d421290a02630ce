"""The range of each feature in normal samples, and how far a value lies outside of it: a forest cannot see that.

An isolation forest splits only where the normal samples differ. So a feature that was constant in them is never looked
at, and a value far outside the range of the others is the same to it as one at the edge.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

STILL: Final = 1e-3
"""A feature stands still while it moves by less than this share of its scale: half precision and TF32 keep ten bits of
a number, 2**-10 (IEEE 754), so what rounds differently on another machine moves by no more."""
_BY_CHANCE: Final = 1e-4
"""About how often one more normal sample may lie further outside the range than is allowed."""


class NormalRange(NamedTuple):
    """The range of F features in normal samples.

    Attributes:
        low, high: (F,), the smallest and the largest value.
        floor: (F,), the smallest distance that is no rounding.
        samples: how many there were, at least two.
    """

    low: Array
    high: Array
    floor: Array
    samples: int

    @classmethod
    def of(cls, rows: Array, floor: Array) -> Self:
        """Return the range of (samples, F) rows."""
        return cls(rows.min(axis=0), rows.max(axis=0), floor, len(rows))

    @property
    def varies(self) -> NDArray[np.bool_]:
        """(F,), whether a feature moves in the normal samples by more than rounding."""
        return self.high / 2 - self.low / 2 > self.floor / 2

    @property
    def margin(self) -> Array:
        """(F,), how far outside its range a feature is no longer normal: about as far as the range is wide, or `floor`.

        Few samples are alike by chance: of n normal samples one more lies k times their range outside of it about as
        often as k**(1 - n). So the margin is k times as wide, for `_BY_CHANCE`: 10,000 for two samples, 1.1 for a
        hundred.
        """
        widened = float(_BY_CHANCE ** (1 / (1 - self.samples)))
        with np.errstate(over="ignore"):  # a margin that is infinite takes every value
            return np.asarray(np.maximum(self.high - self.low, self.floor) * widened)

    def score(self, row: Array) -> float:
        """Return how far the feature that is furthest outside its range is from it.

        0 is inside, 1 at the end of the margin; beyond, each power of ten is one more.
        """
        low, row, high = self.low / 2, row / 2, self.high / 2  # of which no difference overflows
        outside = float(np.max(np.maximum(low - row, row - high) / (self.margin / 2)))
        return max(0.0, outside) if outside <= 1 else 1 + float(np.log10(outside))
