"""Find where a series of scores rose for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_SIDE: Final = 3
"""The fewest captures before and after a change: fewer are an outlier."""
_JUMP: Final = 3.0
"""From this factor on a rise within `_JUMP_CAPTURES` captures is a jump, whatever was above 1 before."""
_JUMP_CAPTURES: Final = 4


def onset(scores: NDArray[np.float64]) -> int | None:
    """Find where a series rose for good: the index of its first capture on the higher side; None where it did not.

    The split is the one that maximises the standardised difference of the means before and after, the statistic of
    a cumulative sum (Page 1954, "Continuous inspection schemes"); it counts where the median after is above 1 and
    above the median before. From there it goes back to where the scores first passed 1 without falling below again,
    since a slow rise is split in its middle. Where the scores jump at the split it goes back to the foot of the jump
    only: what was above 1 before is another matter.

    Args:
        scores: (captures,), all finite.
    """
    n = len(scores)
    if n < 2 * MIN_SIDE:
        return None
    before = np.arange(1, n)
    total = np.cumsum(scores)
    rise = (total[-1] - total[:-1]) / (n - before) - total[:-1] / before
    weight = rise * np.sqrt(before * (n - before) / n)
    weight[: MIN_SIDE - 1] = weight[n - MIN_SIDE :] = -np.inf
    split = int(np.argmax(weight)) + 1
    low, high = float(np.median(scores[:split])), float(np.median(scores[split:]))
    if not (high > 1 and high > low):
        return None
    foot = max(1.0, _foot(scores, split))
    while split > 1 and scores[split - 1] > foot:
        split -= 1
    return split


def begin_above_one(scores: NDArray[np.float64], at: int) -> int:
    """Return the index from which on all scores up to an index are above 1; the index itself where none is."""
    while at > 0 and scores[at - 1] > 1:
        at -= 1
    return at


def _foot(scores: NDArray[np.float64], split: int) -> float:
    """Return the score above which captures before a split belong to its jump; 0 where the scores rise slowly."""
    earlier = scores[max(0, split - 3 * _JUMP_CAPTURES) : max(1, split - _JUMP_CAPTURES + 1)]
    first, last = float(np.median(earlier[:MIN_SIDE])), float(np.median(earlier[-MIN_SIDE:]))
    later = float(np.median(scores[split : split + MIN_SIDE]))
    is_flat = last * last < later * first  # it rose by less before than in the jump, as ratios are
    return float(np.sqrt(last * later)) if later > _JUMP * last and is_flat else 0.0
