"""Metrics of the training: the size of its updates and gradients, and the generalisation gap."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array
from gatewatch.jobs.scoring.metrics.windows import before, latest, median, of_newest, quotient
from gatewatch.jobs.thresholds import GRADIENT_EXPLODES, GRADIENT_VANISHED, UPDATE_FAST, UPDATE_SLOW

GRADIENT_CAPTURES: Final = 32
"""Number of earlier gradients whose median a gradient is compared with."""
GAP_POINTS: Final = 64
"""Number of points of a loss over which its movement is measured."""


def update_band(ratio: Array) -> Array:
    """Return whether updates have a useful size: −1 below `UPDATE_SLOW`, 1 above `UPDATE_FAST`, 0 between.

    Args:
        ratio: (..., n), norm of the update / norm of the weights.

    Returns:
        (..., n), NaN where there is no ratio.
    """
    return _banded(ratio, ratio < UPDATE_SLOW, ratio > UPDATE_FAST)


def gradient_ratio(norm: Array, newest: int | None = None) -> Array:
    """Return the norm of the gradient as a multiple of its median over the captures before.

    Args:
        norm: (..., n), of the gradient before it is clipped.
        newest: compute values for only this many of the newest captures; None: for all.

    Returns:
        (..., n), NaN where fewer than four captures before have a value, or their median is 0.
    """
    usual = median(before(norm, GRADIENT_CAPTURES, newest))
    return quotient(of_newest(norm, newest), usual, usual > 0)


def gradient_state(norm: Array, newest: int | None = None) -> Array:
    """Return −1 where the gradient has vanished, 1 where it explodes, 0 otherwise.

    Vanished: below `GRADIENT_VANISHED`; explodes: more than `GRADIENT_EXPLODES` times its usual norm.

    Args:
        norm: (..., n), of the gradient before it is clipped.
        newest: compute values for only this many of the newest captures; None: for all.

    Returns:
        (..., n), NaN where there is no norm.
    """
    ratio, norm = gradient_ratio(norm, newest), of_newest(norm, newest)
    return _banded(norm, norm < GRADIENT_VANISHED, ratio > GRADIENT_EXPLODES)


def generalisation_gap(loss: Array, val_loss: Array, newest: int | None = None) -> Array:
    """Return how much worse the loss is on data that was not learned from: (val_loss − loss) / scale.

    A ratio val_loss / loss has no meaning for losses that may be negative or zero, such as a negative profit. So the
    difference is divided by a scale of the training loss: its size, or its range over its last points, whichever is
    larger. Multiplying both losses by a positive number does not change the gap. Its sign is that of the difference.

    Loops log the one at each step and the other at the end of an epoch. The loss that a validation loss is compared
    with is then the mean since the validation before, of at most `GAP_POINTS` points.

    Args:
        loss, val_loss: (..., n), at the points of `train_metrics`; a gap is where there is a `val_loss`.
        newest: compute values for only this many of the newest points; None: for all.

    Returns:
        (..., n), 0 for none, 1 where it is worse by as much as the loss itself or all its movement; NaN where one of
        them is missing, or the loss is 0 and never moved.
    """
    windows = latest(loss, GAP_POINTS, newest)
    since = _mean_since(windows, latest(val_loss, GAP_POINTS, newest))
    loss, val_loss = of_newest(loss, newest), of_newest(val_loss, newest)
    loss = np.where(np.isfinite(loss), loss, since)
    with np.errstate(over="ignore"):
        difference = val_loss - loss
        moved = np.fmax.reduce(windows, axis=-1) - np.fmin.reduce(windows, axis=-1)
    scale = np.fmax(np.abs(loss), moved)
    return quotient(difference, scale, scale > 0)


def _mean_since(losses: Array, validations: Array) -> Array:
    """Return the mean of the losses before each point and after the validation before; NaN where there is none.

    Args:
        losses, validations: (..., n, points), windows that end with each point.
    """
    validated = np.isfinite(validations[..., :-1])
    over = np.logical_or.accumulate(validated[..., ::-1], axis=-1)[..., ::-1]
    counts = np.isfinite(losses[..., :-1]) & ~over
    count = counts.sum(axis=-1)
    return quotient(np.where(counts, losses[..., :-1], 0.0).sum(axis=-1), count, count > 0)


def _banded(values: Array, low: NDArray[np.bool_], high: NDArray[np.bool_]) -> Array:
    return np.where(np.isfinite(values), np.where(low, -1.0, np.where(high, 1.0, 0.0)), np.nan)
