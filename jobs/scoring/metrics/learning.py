"""What the training says: the size of its steps and gradients, and whether what is learned holds elsewhere."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.metrics.windows import Array, before, latest, median, of_newest, quotient

UPDATE_SLOW: Final = 1e-5
UPDATE_FAST: Final = 1e-1
"""A step moves the weights by about 1e-3 of their size where training goes well (Karpathy, CS231n, "Neural Networks
Part 3", ratio of weights to updates); two decades to either side it hardly learns, or forgets what it learned."""
GRADIENT_CAPTURES: Final = 32
"""A gradient is compared with the median of so many before it."""
VANISHED: Final = 1e-7
"""A gradient whose norm is below this has vanished: single precision loses its steps."""
EXPLODING: Final = 10.0
"""A gradient this many times as long as usual explodes: beyond where Pascanu, Mikolov and Bengio 2013, "On the
difficulty of training recurrent neural networks", clip it (half to ten times the average norm)."""
GAP_POINTS: Final = 64
"""The points of a loss that say how far it moves."""


def update_band(ratio: Array) -> Array:
    """Whether the steps are of a size that learns: −1 below `UPDATE_SLOW`, 1 above `UPDATE_FAST`, 0 between.

    Args:
        ratio: (..., n), norm of the update / norm of the weights.

    Returns:
        (..., n), NaN where the ratio is not known.
    """
    return _banded(ratio, ratio < UPDATE_SLOW, ratio > UPDATE_FAST)


def gradient_ratio(norm: Array, captures: int = GRADIENT_CAPTURES, newest: int | None = None) -> Array:
    """The norm of the gradient as a multiple of its median over the captures before.

    Args:
        norm: (..., n), of the gradient before it is clipped.
        captures: how many before each.
        newest: only of the newest so many captures.

    Returns:
        (..., n), NaN where fewer than four captures before are known, or their median is 0.
    """
    usual = median(before(norm, captures, newest))
    return quotient(of_newest(norm, newest), usual, usual > 0)


def gradient_state(norm: Array, captures: int = GRADIENT_CAPTURES, newest: int | None = None) -> Array:
    """−1 where the gradient has vanished (below `VANISHED`), 1 where it explodes (`EXPLODING` × usual), 0 otherwise.

    Args:
        norm: (..., n), of the gradient before it is clipped.
        captures: how many before each say what is usual.
        newest: only of the newest so many captures.

    Returns:
        (..., n), NaN where the norm is not known.
    """
    ratio, norm = gradient_ratio(norm, captures, newest), of_newest(norm, newest)
    return _banded(norm, norm < VANISHED, ratio > EXPLODING)


def generalisation_gap(loss: Array, val_loss: Array, points: int = GAP_POINTS, newest: int | None = None) -> Array:
    """How much worse the loss is on data that was not learned from: (val_loss − loss) / scale.

    A ratio val_loss / loss has no meaning for losses that may be negative or pass through zero, as a negative profit
    does. So the difference is measured in the larger of two sizes, both of the training: that of the loss, and how far
    it moved, from the least to the most, over its last points. Multiplying both losses leaves the gap as it is; the
    sign is that of the difference whatever the losses' own.

    Args:
        loss, val_loss: (..., n), at the points of `train_metrics`; a gap is where both are.
        points: the loss's own over which its movement is taken, the newest included.
        newest: only of the newest so many points.

    Returns:
        (..., n), 0 for none, 1 where it is worse by as much as the loss itself or all its movement; NaN where one of
        them is not known, or the loss is 0 and never moved.
    """
    windows = latest(loss, points, newest)
    loss, val_loss = of_newest(loss, newest), of_newest(val_loss, newest)
    with np.errstate(over="ignore"):
        difference = val_loss - loss
        moved = np.fmax.reduce(windows, axis=-1) - np.fmin.reduce(windows, axis=-1)
    scale = np.fmax(np.abs(loss), moved)
    return quotient(difference, scale, scale > 0)


def _banded(values: Array, low: NDArray[np.bool_], high: NDArray[np.bool_]) -> Array:
    return np.where(np.isfinite(values), np.where(low, -1.0, np.where(high, 1.0, 0.0)), np.nan)
